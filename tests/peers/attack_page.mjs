// What a page of somebody else tries against the admin listener at `target`: to read what it
// answers, and to have it act. Each attempt ends with 'nothing', or with what it came to.

// What waits for ever came to nothing either, but that should be seen.
const settle = (promise) => Promise.race([promise, new Promise((resolve) => { setTimeout(resolve, 100000, 'no end') })]);

function embed(tag, attributes) {
  return new Promise((resolve) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.onload = () => resolve('loaded');
    element.onerror = () => resolve('nothing');
    document.body.append(element);
  });
}

// A frame loads in any case; only what can be read of it counts.
function frame(attributes) {
  return new Promise((resolve) => {
    const element = Object.assign(document.createElement('iframe'), attributes);
    element.onload = () => {
      try {
        const text = element.contentWindow.document.body.innerText;
        resolve(text === '' ? 'nothing' : `read ${text.slice(0, 80)}`);
      } catch {
        resolve('nothing');
      }
    };
    document.body.append(element);
  });
}

async function ask(url, options) {
  try {
    const answer = await fetch(url, { credentials: 'include', ...options });
    const text = await answer.text();
    return text === '' ? 'nothing' : `read ${text.slice(0, 80)}`;
  } catch {
    return 'nothing';
  }
}

let forms = 0;
function post(url, enctype, fields) {
  const name = `form-${++forms}`;
  const shown = frame({ name });
  const form = Object.assign(document.createElement('form'), { action: url, method: 'post', enctype, target: name });
  for (const [field, value] of Object.entries(fields)) {
    form.append(Object.assign(document.createElement('input'), { name: field, value }));
  }
  document.body.append(form);
  return shown.then(() => new Promise((resolve) => {
    const element = document.getElementsByName(name)[0];
    element.onload = () => {
      try {
        resolve(`read ${element.contentWindow.document.body.innerText.slice(0, 80)}`);
      } catch {
        resolve('nothing');
      }
    };
    form.submit();
  }));
}

function listen(url) {
  return new Promise((resolve) => {
    const source = new EventSource(url, { withCredentials: true });
    source.addEventListener('change', ({ data }) => resolve(`read ${data.slice(0, 80)}`));
    source.onopen = () => resolve('opened');
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) resolve('nothing') };
  });
}

function connect(url) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve('opened');
    socket.onerror = () => resolve('nothing');
  });
}

const ACTIONS = [
  ['POST', '/api/tenants/acme/pause'], ['POST', '/tenants/acme/pause'], ['POST', '/-/reload'], ['POST', '/reload'],
  ['POST', '/api/tenants/acme/rollback?revision=1'], ['POST', '/api/blocks'], ['POST', '/people/block'],
  ['POST', '/-/backup'], ['PUT', '/api/files/evil.yaml'], ['DELETE', '/api/tenants/acme'],
];
const FIELDS = { person: 'ada@contoso.com', csrf_token: '0'.repeat(64) };

export async function attack(target) {
  const attempts = {
    'a script': embed('script', { src: `${target}/console/console.js` }),
    'a script of JSON': embed('script', { src: `${target}/api/tenants` }),
    'a picture': embed('img', { src: `${target}/console/icon.png` }),
    'a style': embed('link', { rel: 'stylesheet', href: `${target}/console/console.css` }),
    'a frame': frame({ src: `${target}/` }),
    events: listen(`${target}/events`),
    'a socket': connect(`${target.replace('http', 'ws')}/events`),
    'a beacon': Promise.resolve(navigator.sendBeacon(`${target}/-/reload`, 'x')).then(() => 'nothing'),
  };
  for (const path of ['/', '/api/tenants', '/api/audit', '/tenants/acme', '/metrics']) {
    for (const mode of ['cors', 'no-cors']) attempts[`GET ${path} ${mode}`] = ask(target + path, { mode });
  }
  for (const [method, path] of ACTIONS) {
    attempts[`${method} ${path} cors`] = ask(target + path, { method, mode: 'cors', body: JSON.stringify(FIELDS), headers: { 'X-CSRF-Token': FIELDS.csrf_token } });
    if (method !== 'POST') continue;
    attempts[`${method} ${path} no-cors`] = ask(target + path, { method, mode: 'no-cors', body: new URLSearchParams(FIELDS) });
    for (const enctype of ['application/x-www-form-urlencoded', 'multipart/form-data', 'text/plain']) {
      attempts[`form ${path} ${enctype}`] = post(target + path, enctype, FIELDS);
    }
  }
  const names = Object.keys(attempts);
  const ends = await Promise.all(Object.values(attempts).map(settle));
  return Object.fromEntries(names.map((name, at) => [name, ends[at]]));
}
