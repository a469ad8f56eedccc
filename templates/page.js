for (const pre of document.querySelectorAll('pre')) {
  const box = document.createElement('div');
  box.className = 'snippet';
  pre.replaceWith(box);
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = 'Copy';
  button.setAttribute('aria-label', 'Copy: ' + (pre.getAttribute('aria-label') || 'connector URL'));
  box.append(pre, button);
  button.addEventListener('click', async () => {
    const code = pre.querySelector('code');
    let copied = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // Over plain HTTP there is no clipboard API.
      getSelection().selectAllChildren(code);
      copied = document.execCommand('copy');
    }
    button.textContent = copied ? 'Copied' : 'Press Ctrl+C';
    setTimeout(() => { button.textContent = 'Copy' }, 2000);
  });
}
