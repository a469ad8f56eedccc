// The TypeScript SDK of the 2026-07-28 revision. It speaks older revisions unless it negotiates
// (`mode: "auto"`).

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { connected } from './login.mjs';
import { call, follow, told, transportOptions } from './steps.mjs';

let client;
let subscription;
// Notifications received and not yet reported, and the callback that wakes the waiting `heard`.
const heard = [];
let wake = () => {};

function hear(what) {
  heard.push(what);
  wake();
}

await follow({
  async connect(order) {
    const { url, mode } = order;
    let transport;
    const connect = async (options) => {
      client = new Client({ name: 'ts-v2', version: '1.0.0' }, mode ? { versionNegotiation: { mode } } : {});
      client.setNotificationHandler('notifications/tools/list_changed', () => hear('tools'));
      transport = new StreamableHTTPClientTransport(new URL(url), { ...transportOptions(), ...options });
      await client.connect(transport);
    };
    await connected(order, connect, (found) => transport.finishAuth(found));
    return { version: client.getNegotiatedProtocolVersion() };
  },
  async tools() {
    const { tools } = await client.listTools();
    return { tools: tools.map(({ name, description }) => ({ name, description })) };
  },
  async call(order) {
    const { options, progress } = call(order);
    const wanted = { name: order.name, arguments: order.arguments ?? {} };
    return told(await client.callTool(wanted, options), progress);
  },
  async resources() {
    const { resources } = await client.listResources();
    return { uris: resources.map(({ uri }) => uri) };
  },
  async read({ uri }) {
    const { contents } = await client.readResource({ uri });
    return { text: contents[0].text };
  },
  async listen() {
    subscription = await client.listen({ toolsListChanged: true });
    subscription.closed.then((how) => hear(how === 'graceful' ? 'end' : how));
    return { listening: subscription.honoredFilter.toolsListChanged === true };
  },
  async heard() {
    while (heard.length === 0) await new Promise((resolve) => { wake = resolve; });
    return { heard: heard.shift() };
  },
  async close() {
    await client.close();
    return { closed: true };
  },
});
