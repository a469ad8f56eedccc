"""langchain-mcp-adapters."""

from contextlib import asynccontextmanager

from langchain_mcp_adapters.client import MultiServerMCPClient

import steps
from toolbox import Toolbox, first_text


@asynccontextmanager
async def connected(order):
    server = {"transport": "streamable_http", "url": order["url"], "headers": steps.headers()}
    tools = await MultiServerMCPClient({"tenant": server}).get_tools()
    yield None, Toolbox(tools, run)


async def run(tool, arguments):
    call = {"type": "tool_call", "id": "1", "name": tool.name, "args": arguments}
    message = await tool.ainvoke(call)
    return message.content if isinstance(message.content, str) else first_text(message.content)


steps.main(connected)
