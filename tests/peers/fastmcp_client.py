"""The client of fastmcp. It negotiates the protocol version."""

from contextlib import asynccontextmanager

from fastmcp import Client

import steps


@asynccontextmanager
async def connected(order):
    async with Client(order["url"], auth=steps.key(), mode=order.get("mode") or "auto") as client:
        yield client.protocol_version, Verbs(client)


class Verbs:
    def __init__(self, client):
        self.client = client

    async def tools(self, order):
        tools = await self.client.list_tools()
        return {"tools": [{"name": tool.name, "description": tool.description} for tool in tools]}

    async def call(self, order):
        progress = steps.Progress(order)
        call = self.client.call_tool(
            order["name"],
            order.get("arguments"),
            timeout=order.get("patience", 30),
            progress_handler=progress.callback,
            raise_on_error=False,
        )
        result = await steps.until_told(order, call)
        return steps.told(result.is_error, result.content, result.structured_content, progress)

    async def resources(self, order):
        return {"uris": [str(resource.uri) for resource in await self.client.list_resources()]}

    async def read(self, order):
        contents = await self.client.read_resource(order["uri"])
        return {"text": contents[0].text}


steps.main(connected)
