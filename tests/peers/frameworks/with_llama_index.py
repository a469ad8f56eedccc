"""llama-index-tools-mcp. Its models read the whole result as Python writes it."""

from contextlib import asynccontextmanager
from types import SimpleNamespace

from llama_index.tools.mcp import BasicMCPClient, McpToolSpec

import steps
from toolbox import Toolbox


@asynccontextmanager
async def connected(order):
    client = BasicMCPClient(order["url"], headers=steps.headers())
    tools = await McpToolSpec(client).to_tool_list_async()
    yield None, Toolbox([named(tool) for tool in tools], run)


def named(tool):
    return SimpleNamespace(name=tool.metadata.name, description=tool.metadata.description, call=tool.acall)


async def run(tool, arguments):
    return (await tool.call(**arguments)).content


steps.main(connected)
