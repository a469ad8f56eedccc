"""pydantic-ai. Its models read the structured content."""

import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

from pydantic_ai import RunContext, RunUsage
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.test import TestModel

import steps
from toolbox import Toolbox


@asynccontextmanager
async def connected(order):
    async with MCPToolset(order["url"], headers=steps.headers()) as toolset:
        context = RunContext(deps=None, model=TestModel(), usage=RunUsage())
        tools = await toolset.get_tools(context)

        async def run(tool, arguments):
            return json.dumps(await toolset.call_tool(tool.name, arguments, context, tools[tool.name]))

        yield None, Toolbox([described(name, tool) for name, tool in tools.items()], run)


def described(name, tool):
    return SimpleNamespace(name=name, description=tool.tool_def.description)


steps.main(connected)
