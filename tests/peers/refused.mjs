// Posts a body that will be refused, by one of node's HTTP clients, and prints the status that it read, or what it met instead.

import http2 from "node:http2";
import https from "node:https";

const [client, url, , size, token] = process.argv.slice(2);
const { host, origin, pathname } = new URL(url);
const body = '{"a":"' + "x".repeat(Number(size)) + '"}';
const headers = { "content-type": "application/json", accept: "application/json, text/event-stream" };
if (token) headers.authorization = `Bearer ${token}`;

const clients = {
  http: () =>
    new Promise((read, failed) => {
      const length = { "content-length": body.length };
      const request = https.request(url, { method: "POST", headers: { ...headers, ...length } }, (answer) => {
        answer.on("end", () => read(answer.statusCode)).on("error", failed).resume();
      });
      request.on("error", failed).end(body);
    }),
  fetch: async () => {
    const answer = await fetch(url, { method: "POST", headers, body });
    await answer.text();
    return answer.status;
  },
  http2: () =>
    new Promise((read, failed) => {
      const session = http2.connect(origin).on("error", failed);
      const request = session.request({ ":method": "POST", ":path": pathname, ":authority": host, ...headers });
      let status;
      request.on("response", (head) => (status = head[":status"])).on("error", failed);
      request.on("end", () => read(status)).resume().end(body);
    }),
};

clients[client]().then(
  (status) => (console.log(status), process.exit(0)),
  (error) => (console.log(error.cause?.code ?? error.code ?? error.message), process.exit(0)),
);
