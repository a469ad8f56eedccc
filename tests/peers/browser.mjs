// Headless Chromium, driven over the DevTools protocol. Orders and answers: see README.md.

import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { follow } from './steps.mjs';

// Commands to the browser.
let commands;
let session;
let wanted;
let sent = 0;
const waiting = new Map();
// Log entries of the page: blocked styles, scripts and frames, failed loads.
let complaints = [];

// Sends a command to the page and returns its result.
function ask(method, params = {}) {
  const id = ++sent;
  commands.write(`${JSON.stringify({ id, method, params, sessionId: session })}\0`);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

function heard({ id, result, error, method, params }) {
  if (method === 'Log.entryAdded') complaints.push(params.entry);
  const { resolve, reject } = waiting.get(id) ?? {};
  waiting.delete(id);
  if (error) reject?.(new Error(error.message));
  else resolve?.(result);
}

async function evaluate(expression) {
  const { result } = await ask('Runtime.evaluate', { expression, returnByValue: true, userGesture: true });
  return result.value;
}

// Polls a condition. During a navigation the page cannot evaluate anything, which counts as false.
async function until(condition) {
  for (let tries = 0; tries < 3000; tries++) {
    const met = await evaluate(condition).catch(() => false);
    if (met) return;
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  throw new Error(`in vain: ${condition} at ${await evaluate('location.href')}`);
}

await follow({
  async start({ program, folder, scripts, width, dark, scale = 2, hosts, bypass }) {
    wanted = width;
    // The browser ends with its pipe, also if this process is killed.
    const chromium = spawn(program, [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--ignore-certificate-errors',
      '--remote-debugging-pipe', `--user-data-dir=${folder}`,
      ...(hosts ? [`--host-resolver-rules=${hosts}`] : []), 'about:blank',
    ], { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'] });
    let said = '';
    chromium.stderr.setEncoding('utf8').on('data', (piece) => { said = (said + piece).slice(-10000); });
    chromium.on('exit', () => {
      for (const { reject } of waiting.values()) reject(new Error(`Chromium ended: ${said}`));
    });
    commands = chromium.stdio[3];
    commands.on('error', () => {});
    let heardSoFar = '';
    chromium.stdio[4].setEncoding('utf8').on('data', (piece) => {
      const messages = (heardSoFar + piece).split('\0');
      heardSoFar = messages.pop();
      for (const message of messages) heard(JSON.parse(message));
    });
    const { targetId } = await ask('Target.createTarget', { url: 'about:blank' });
    ({ sessionId: session } = await ask('Target.attachToTarget', { targetId, flatten: true }));
    for (const domain of ['Page', 'Runtime', 'Log']) await ask(`${domain}.enable`);
    if (bypass) await ask('Page.setBypassCSP', { enabled: true });
    await ask('Emulation.setScriptExecutionDisabled', { value: !scripts });
    await ask('Emulation.setDeviceMetricsOverride', { width, height: 800, deviceScaleFactor: scale, mobile: width < 600 });
    await ask('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }] });
    return { started: true };
  },
  async go({ url }) {
    complaints = [];
    await ask('Page.navigate', { url });
    await until(`document.readyState === 'complete' && location.href !== 'about:blank'`);
    return { url: await evaluate('location.href') };
  },
  async click({ selector }) {
    const place = `(() => { const element = document.querySelector(${JSON.stringify(selector)});
      element.scrollIntoView({ block: 'center', behavior: 'instant' });
      const { x, y, width, height } = element.getBoundingClientRect();
      return { x: x + width / 2, y: y + height / 2 }; })()`;
    const { x, y } = await evaluate(place);
    for (const type of ['mousePressed', 'mouseReleased']) {
      await ask('Input.dispatchMouseEvent', { type, x, y, button: 'left', clickCount: 1 });
    }
    return { clicked: true };
  },
  async wait({ condition }) {
    await until(condition);
    return { met: true };
  },
  async arrive({ at }) {
    await until(`location.href.startsWith(${JSON.stringify(at)}) && document.readyState === 'complete'`);
    return { url: await evaluate('location.href') };
  },
  // The frames of the page's own process. What a policy kept out of a frame is `unreachable`.
  async frames() {
    const { frameTree } = await ask('Page.getFrameTree');
    const all = [];
    const visit = ({ frame, childFrames = [] }) => {
      all.push({ url: frame.url, unreachable: frame.unreachableUrl ?? null });
      childFrames.forEach(visit);
    };
    visit(frameTree);
    return { frames: all };
  },
  async evaluate({ expression }) {
    return { value: await evaluate(expression) ?? null };
  },
  async press({ keys }) {
    for (const key of keys) {
      const known = { Tab: 9, Enter: 13 }[key];
      const text = known ? (key === 'Enter' ? '\r' : undefined) : key;
      const event = { key, code: known ? key : undefined, windowsVirtualKeyCode: known ?? key.toUpperCase().charCodeAt(0), text };
      await ask('Input.dispatchKeyEvent', { type: 'keyDown', ...event });
      await ask('Input.dispatchKeyEvent', { type: 'keyUp', ...event, text: undefined });
    }
    return { pressed: keys.length };
  },
  async judge() {
    const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
    await ask('Runtime.evaluate', { expression: `if (!window.axe) { ${readFileSync(axe, 'utf8')} }` });
    const expression = `axe.run(document, { resultTypes: ['violations'] }).then(({ violations, passes }) => ({
      passes: passes.length,
      faults: violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
        .map(({ id, nodes }) => ({ id, nodes: nodes.map(({ html, failureSummary }) => [html, failureSummary]) })),
    }))`;
    const { result, exceptionDetails } = await ask('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.text);
    return result.value;
  },
  async look({ file }) {
    if (file) {
      const format = file.endsWith('.webp') ? { format: 'webp', quality: 60 } : { format: 'png' };
      const { data } = await ask('Page.captureScreenshot', { ...format, captureBeyondViewport: true });
      writeFileSync(file, Buffer.from(data, 'base64'));
    }
    // A page wider than its window is hard to read on a phone, which then zooms out.
    const wide = await evaluate(`document.documentElement.scrollWidth > ${wanted}`);
    // The error status of the page itself is no complaint.
    const url = await evaluate('location.href');
    const others = complaints.filter((entry) => entry.source !== 'network' || entry.url !== url).map((entry) => entry.text);
    const [text, title] = [await evaluate('document.body.innerText'), await evaluate('document.title')];
    return { text, title, wide, complaints: others };
  },
});
