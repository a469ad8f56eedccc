"""The Python SDK of the 2026-07-28 revision (mcp 2.x). It negotiates the version unless `mode` sets it."""

from contextlib import AsyncExitStack, asynccontextmanager

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

import login
import steps


@asynccontextmanager
async def connected(order):
    async with create_mcp_http_client(headers=steps.headers(), auth=login.auth(order)) as http:
        transport = streamable_http_client(order["url"], http_client=http)
        async with Client(transport, mode=order.get("mode") or "auto") as client, AsyncExitStack() as stack:
            yield client.protocol_version, Verbs(client, stack)


class Verbs:
    def __init__(self, client, stack):
        self.client, self.stack = client, stack
        self.subscription = None

    async def tools(self, order):
        listed = await self.client.list_tools()
        return {"tools": [{"name": tool.name, "description": tool.description} for tool in listed.tools]}

    async def call(self, order):
        progress = steps.Progress(order)
        call = self.client.call_tool(
            order["name"],
            order.get("arguments"),
            read_timeout_seconds=order.get("patience", 30),
            progress_callback=progress.callback,
        )
        result = await steps.until_told(order, call)
        return steps.told(result.is_error, result.content, result.structured_content, progress)

    async def resources(self, order):
        listed = await self.client.list_resources()
        return {"uris": [str(resource.uri) for resource in listed.resources]}

    async def read(self, order):
        result = await self.client.read_resource(order["uri"])
        return {"text": result.contents[0].text}

    async def listen(self, order):
        self.subscription = await self.stack.enter_async_context(self.client.listen(tools_list_changed=True))
        return {"listening": self.subscription.honored.tools_list_changed is True}

    async def heard(self, order):
        async for _event in self.subscription:
            return {"heard": "tools"}
        return {"heard": "end"}


steps.main(connected)
