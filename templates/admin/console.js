// Everything here is a convenience: each page is complete without it.
const every = (selector, within = document) => within.querySelectorAll(selector);

async function copy(button) {
  const text = button.dataset.copy;
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain HTTP there is no clipboard API.
    const field = document.createElement('textarea');
    field.value = text;
    document.body.append(field);
    field.select();
    copied = document.execCommand('copy');
    field.remove();
    button.focus();
  }
  button.textContent = copied ? 'Copied' : 'Press Ctrl+C';
  setTimeout(() => { button.textContent = 'Copy' }, 2000);
}

document.addEventListener('click', (event) => {
  const button = event.target.closest?.('button[data-copy]');
  if (button) copy(button);
});

// A file can be dropped onto the form that takes one.
for (const form of every('form[data-drop]')) {
  const field = form.querySelector('input[type=file]');
  for (const hint of every('[data-drop-hint]', form)) hint.hidden = false;
  const over = (event) => {
    event.preventDefault();
    form.classList.toggle('over', event.type === 'dragover');
  };
  form.addEventListener('dragover', over);
  form.addEventListener('dragleave', over);
  form.addEventListener('drop', (event) => {
    over(event);
    if (event.dataTransfer.files.length !== 1) return;
    field.files = event.dataTransfer.files;
    form.requestSubmit();
  });
}

// Times grow old while a page is open.
const UNITS = [['d', 86400], ['h', 3600], ['min', 60]];
function age(seconds) {
  const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? [];
  if (!unit) return 'just now';
  const span = `${Math.floor(Math.abs(seconds) / length)} ${unit}`;
  return seconds < 0 ? `in ${span}` : `${span} ago`;
}
function refreshTimes() {
  for (const time of every('time[datetime]')) {
    time.textContent = age((Date.now() - Date.parse(time.dateTime)) / 1000);
  }
}
function prepare() {
  for (const button of every('button[data-copy]')) button.hidden = false;
}
prepare();
setInterval(refreshTimes, 30000);

// The gateway tells when something changed; then the parts of this page that are about it are
// fetched again. What a person is just using stays as it is.
let isStale = false;
let isFetching = false;
async function refresh() {
  if (document.hidden || isFetching) return;
  isStale = false;
  isFetching = true;
  try {
    const response = await fetch(location.href, { redirect: 'error' });
    if (!response.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), 'text/html');
    for (const part of every('[data-live]')) {
      const next = page.getElementById(part.id);
      const isUsed = part.contains(document.activeElement) || part.querySelector('details[open]');
      if (next && !isUsed && next.innerHTML !== part.innerHTML) part.replaceWith(document.adoptNode(next));
    }
    prepare();
    refreshTimes();
  } catch {
    // The gateway may be restarting; the stream reconnects, and says when to look again.
  } finally {
    isFetching = false;
  }
}
if (document.querySelector('[data-live]')) {
  let first = true;
  const events = new EventSource('/events');
  events.addEventListener('change', () => {
    // The first one only says how things stand.
    if (first) { first = false; return; }
    isStale = true;
    refresh();
  });
  document.addEventListener('visibilitychange', () => { if (isStale) refresh(); });
  document.documentElement.dataset.events = 'on';
}
