// The TypeScript SDK of the 2025 protocol revisions.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { connected } from './login.mjs';
import { call, follow, told, transportOptions } from './steps.mjs';

const client = new Client({ name: 'ts-v1', version: '1.0.0' });

await follow({
  async connect(order) {
    let transport;
    const connect = async (options) => {
      transport = new StreamableHTTPClientTransport(new URL(order.url), { ...transportOptions(), ...options });
      await client.connect(transport);
    };
    await connected(order, connect, (found) => transport.finishAuth(found.get('code')));
    return { version: transport.protocolVersion };
  },
  async tools() {
    const { tools } = await client.listTools();
    return { tools: tools.map(({ name, description }) => ({ name, description })) };
  },
  async call(order) {
    const { options, progress } = call(order);
    const wanted = { name: order.name, arguments: order.arguments ?? {} };
    return told(await client.callTool(wanted, undefined, options), progress);
  },
  async resources() {
    const { resources } = await client.listResources();
    return { uris: resources.map(({ uri }) => uri) };
  },
  async read({ uri }) {
    const { contents } = await client.readResource({ uri });
    return { text: contents[0].text };
  },
  async close() {
    await client.close();
    return { closed: true };
  },
});
