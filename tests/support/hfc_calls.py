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
    seen["hub"] = [await heard(cli, user, task, filtered) for filtered in (True, False)]
    await cli.close_grpc_channels()
    return seen


async def heard(cli, user, task, filtered):
    """What an event hub calls back with for one block: the block's number, its transaction, its event."""
    hub = cli.get_channel(task["channel"]).newChannelEventHub(cli.get_peer(task["peers"]["Alpha"]), user)
    found = []

    def on_block(block):
        number = block.get("number", block.get("header", {}).get("number"))
        found.append(["block", int(number)])

    def on_transaction(transaction_id, status, number):
        found.append(["transaction", transaction_id, status, number])

    def on_event(event, number, transaction_id, status):
        found.append(["event", event["event_name"], plain(event.get("payload", b"")), number, transaction_id, status])

    hub.registerBlockEvent(onEvent=on_block)
    hub.registerTxEvent(task["transaction"], onEvent=on_transaction)
    hub.registerChaincodeEvent("probe", "^made$", onEvent=on_event)
    await asyncio.wait_for(hub.connect(filtered, task["block"], task["block"]), 30)
    return found


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    print(json.dumps(loop.run_until_complete(calls(module.Client, json.loads(sys.argv[2])))))
