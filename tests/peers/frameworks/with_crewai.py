"""crewai-tools, which sends null for each optional argument."""

from contextlib import asynccontextmanager

from crewai_tools import MCPServerAdapter

import steps
from toolbox import Toolbox, in_thread


@asynccontextmanager
async def connected(order):
    server = {"url": order["url"], "transport": "streamable-http", "headers": steps.headers() or {}}
    adapter = await in_thread(lambda: MCPServerAdapter(server, connect_timeout=order.get("patience", 30)))
    yield None, Toolbox(adapter.tools, run)
    await in_thread(adapter.stop)


async def run(tool, arguments):
    return await in_thread(lambda: tool.run(**arguments))


steps.main(connected)
