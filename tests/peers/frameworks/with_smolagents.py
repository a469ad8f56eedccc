"""smolagents, which shows its models the first text block only unless it is asked for structured output."""

from contextlib import asynccontextmanager

from smolagents import MCPClient

import steps
from toolbox import Toolbox, in_thread


@asynccontextmanager
async def connected(order):
    server = {"url": order["url"], "transport": "streamable-http", "headers": steps.headers()}
    waits = {"connect_timeout": order.get("patience", 30)}
    client = await in_thread(lambda: MCPClient(server, adapter_kwargs=waits, structured_output=False))
    yield None, Toolbox(client.get_tools(), run)
    await in_thread(client.disconnect)


async def run(tool, arguments):
    return await in_thread(lambda: tool(**arguments))


steps.main(connected)
