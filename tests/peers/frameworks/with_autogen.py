"""autogen-ext."""

from contextlib import asynccontextmanager

from autogen_core import CancellationToken
from autogen_ext.tools.mcp import StreamableHttpServerParams, mcp_server_tools

import steps
from toolbox import Toolbox


@asynccontextmanager
async def connected(order):
    server = StreamableHttpServerParams(url=order["url"], headers=steps.headers())
    yield None, Toolbox(await mcp_server_tools(server), run)


async def run(tool, arguments):
    blocks = await tool.run_json(arguments, CancellationToken())
    return blocks[0].text


steps.main(connected)
