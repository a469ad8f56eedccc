// Executes a test's orders with a client: one JSON object a line in, one out. See README.md.

import { createInterface } from 'node:readline';

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function next() {
  const { value, done } = await lines.next();
  return done ? undefined : JSON.parse(value);
}

// `verbs` has a function for each value of `do` in an order.
export async function follow(verbs) {
  for (let order = await next(); order !== undefined; order = await next()) {
    console.log(JSON.stringify(await answer(verbs, order)));
  }
  process.exit(0);
}

// Sends a line to the test while an order is executed, and returns the test's next line.
export async function asked(question) {
  console.log(JSON.stringify(question));
  return next();
}

async function answer(verbs, order) {
  try {
    return await verbs[order.do](order);
  } catch (error) {
    return { error: describe(error) };
  }
}

// The reason of a failed fetch is in its cause.
function describe(error) {
  const text = `${error.name}: ${error.message}`;
  return error.cause ? `${text}: ${describe(error.cause)}` : text;
}

// The call options common to both SDKs, and the list that reported progress is added to.
export function call(order) {
  const progress = [];
  const options = { timeout: (order.patience ?? 30) * 1000 };
  if (order.progress) options.onprogress = (beat) => progress.push(beat.message ?? beat.progress);
  if (order.stoppable) {
    const stop = new AbortController();
    next().then(() => stop.abort());
    options.signal = stop.signal;
  }
  return { options, progress };
}

export function told(result, progress) {
  return {
    failed: result.isError ?? false,
    text: result.content.map((block) => block.text ?? '').join('\n'),
    data: result.structuredContent ?? null,
    progress,
  };
}

export function transportOptions() {
  const key = process.env.PEER_KEY;
  return key ? { requestInit: { headers: { Authorization: `Bearer ${key}` } } } : {};
}
