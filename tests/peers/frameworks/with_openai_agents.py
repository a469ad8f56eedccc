"""openai-agents, with the strict schemas that OpenAI's models are given."""

import json
from contextlib import asynccontextmanager

from agents import Agent, RunContextWrapper
from agents.mcp import MCPServerStreamableHttp, MCPUtil
from agents.tool_context import ToolContext

import steps
from toolbox import Toolbox, first_text


@asynccontextmanager
async def connected(order):
    params = {"url": order["url"], "headers": steps.headers() or {}}
    async with MCPServerStreamableHttp(params, name="tenant") as server:
        agent = Agent(name="agent", mcp_servers=[server])
        tools = await MCPUtil.get_function_tools(server, True, RunContextWrapper(None), agent)
        yield None, Toolbox(tools, run)


async def run(tool, arguments):
    arguments = json.dumps(arguments)
    context = ToolContext(None, tool_name=tool.name, tool_call_id="1", tool_arguments=arguments)
    answer = await tool.on_invoke_tool(context, arguments)
    return answer if isinstance(answer, str) else first_text(answer if isinstance(answer, list) else [answer])


steps.main(connected)
