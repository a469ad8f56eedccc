"""The Python SDK of the 2025 protocol revisions (mcp 1.x)."""

from contextlib import asynccontextmanager
from datetime import timedelta

from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

import login
import steps


@asynccontextmanager
async def connected(order):
    http = create_mcp_http_client(headers=steps.headers(), auth=login.auth(order))
    async with http, streamable_http_client(order["url"], http_client=http) as (reader, writer, _):
        async with ClientSession(reader, writer) as session:
            hello = await session.initialize()
            yield hello.protocolVersion, Verbs(session)


class Verbs:
    def __init__(self, session):
        self.session = session

    async def tools(self, order):
        listed = await self.session.list_tools()
        return {"tools": [{"name": tool.name, "description": tool.description} for tool in listed.tools]}

    async def call(self, order):
        progress = steps.Progress(order)
        call = self.session.call_tool(
            order["name"],
            order.get("arguments"),
            read_timeout_seconds=timedelta(seconds=order.get("patience", 30)),
            progress_callback=progress.callback,
        )
        result = await steps.until_told(order, call)
        return steps.told(result.isError, result.content, result.structuredContent, progress)

    async def resources(self, order):
        listed = await self.session.list_resources()
        return {"uris": [str(resource.uri) for resource in listed.resources]}

    async def read(self, order):
        result = await self.session.read_resource(order["uri"])
        return {"text": result.contents[0].text}


steps.main(connected)
