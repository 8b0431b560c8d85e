"""The same calls by the genuine hfc and by the facade: run by either's interpreter. Arguments: module, one JSON document."""

import asyncio
import importlib
import json
import sys


def plain(value):
    """What JSON takes, with bytes as hexadecimal digits."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


async def calls(client_class, task):
    cli = client_class(net_profile=task["profile"])
    cli.new_channel(task["channel"])
    user = cli.get_user("Alpha", "User1")
    peers = [task["peers"]["Alpha"], task["peers"]["Beta"]]
    common = {"channel_name": task["channel"], "cc_name": "probe"}
    seen = {}
    seen["query"] = await cli.chaincode_query(user, peers=peers[:1], args=["conga"], fcn="Probe:echo", **common)
    seen["invoke"] = await cli.chaincode_invoke(
        user, peers=peers, args=[task["key"], "5"], fcn="Probe:add", wait_for_event=True, **common
    )
    seen["refusal"] = await cli.chaincode_invoke(
        user, peers=peers, args=["k", "E_CONGA", "no"], fcn="Probe:refuse", **common
    )
    info = await cli.query_info(user, task["channel"], peers[:1])
    seen["info"] = {"tall": info.height > 3, "hash": len(info.currentBlockHash)}
    block = await cli.query_block(user, task["channel"], peers[:1], str(task["block"]))
    seen["block"] = plain(block)
    seen["by_txid"] = plain(await cli.query_block_by_txid(user, task["channel"], peers[:1], task["transaction"]))
    seen["transaction"] = plain(await cli.query_transaction(user, task["channel"], peers[:1], task["transaction"]))
    seen["genesis"] = plain(await cli.query_block(user, task["channel"], peers[:1], "0"))
    configs = await cli.get_channel_config(user, task["channel"], peers[:1])
    seen["config"] = [one.SerializeToString(deterministic=True).hex() for one in configs]
    channels = await cli.query_channels(user, peers[:1])
    seen["channels"] = sorted(one.channel_id for one in channels.channels)
    seen["names"] = [user.name, user.msp_id, sorted(cli.peers), cli.get_peer("nobody"), cli.get_user("Alpha", "nobody")]
    await cli.close_grpc_channels()
    return seen


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    print(json.dumps(loop.run_until_complete(calls(module.Client, json.loads(sys.argv[2])))))
