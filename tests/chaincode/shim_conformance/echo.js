// The echo contract for fabric-shim (Node); see echo_chaincode.py.
// Usage: node echo.js CHAINCODE_ID ADDRESS KEY_FILE CERTIFICATE_FILE CLIENT_ROOTS_FILE
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const shim = require('fabric-shim');

const text = (value) => (value === undefined || value === null || value.length === 0 ? null : Buffer.from(value).toString());
const hex = (value) => (value === undefined || value === null || value.length === 0 ? null : Buffer.from(value).toString('hex'));

async function take(found, limit = 1000000) {
    const iterator = typeof found.next === 'function' ? found : await found;
    const taken = [];
    while (taken.length < limit) {
        const step = await iterator.next();
        if (step.value) {
            taken.push([step.value.key, Buffer.from(step.value.value).toString()]);
        }
        if (step.done) {
            break;
        }
    }
    await iterator.close();
    return taken;
}

async function page(found) {
    const {iterator, metadata} = await found;
    return [await take(iterator), metadata.fetchedRecordsCount, metadata.bookmark];
}

const steps = {
    get: async (stub, key) => text(await stub.getState(key)),
    many: async (stub, ...keys) => Promise.all(keys.map(async (key) => text(await stub.getState(key)))),
    put: async (stub, key, value) => (await stub.putState(key, Buffer.from(value)), null),
    delete: async (stub, key) => (await stub.deleteState(key), null),
    range: async (stub, start, end, limit) => take(await stub.getStateByRange(start, end), limit),
    partial: async (stub, type, attributes) => take(await stub.getStateByPartialCompositeKey(type, attributes)),
    range_page: async (stub, ...args) => page(stub.getStateByRangeWithPagination(...args)),
    partial_page: async (stub, ...args) => page(stub.getStateByPartialCompositeKeyWithPagination(...args)),
    query: async (stub, query) => take(await stub.getQueryResult(query)),
    history: async (stub, key) => {
        const iterator = await stub.getHistoryForKey(key);
        const found = [];
        for (;;) {
            const step = await iterator.next();
            if (step.value) {
                found.push([step.value.txId, Buffer.from(step.value.value).toString(), Boolean(step.value.isDelete)]);
            }
            if (step.done) {
                break;
            }
        }
        await iterator.close();
        return found;
    },
    composite: async (stub, type, attributes) => stub.createCompositeKey(type, attributes),
    split: async (stub, key) => {
        const parts = stub.splitCompositeKey(key);
        return [parts.objectType, parts.attributes];
    },
    pget: async (stub, collection, key) => text(await stub.getPrivateData(collection, key)),
    pput: async (stub, collection, key, value) => (await stub.putPrivateData(collection, key, Buffer.from(value)), null),
    pdelete: async (stub, collection, key) => (await stub.deletePrivateData(collection, key), null),
    ppurge: async (stub, collection, key) => (await stub.purgePrivateData(collection, key), null),
    phash: async (stub, collection, key) => hex(await stub.getPrivateDataHash(collection, key)),
    prange: async (stub, ...args) => {
        const found = await stub.getPrivateDataByRange(...args);
        return take(found.iterator || found);
    },
    ppartial: async (stub, ...args) => {
        const found = await stub.getPrivateDataByPartialCompositeKey(...args);
        return take(found.iterator || found);
    },
    pquery: async (stub, ...args) => {
        const found = await stub.getPrivateDataQueryResult(...args);
        return take(found.iterator || found);
    },
    set_policy: async (stub, key, policy) => (await stub.setStateValidationParameter(key, Buffer.from(policy, 'hex')), null),
    get_policy: async (stub, key) => hex(await stub.getStateValidationParameter(key)),
    set_ppolicy: async (stub, collection, key, policy) =>
        (await stub.setPrivateDataValidationParameter(collection, key, Buffer.from(policy, 'hex')), null),
    get_ppolicy: async (stub, collection, key) => hex(await stub.getPrivateDataValidationParameter(collection, key)),
    event: async (stub, name, payload) => (stub.setEvent(name, Buffer.from(payload)), null),
    invoke: async (stub, chaincode, args, channel) => {
        const answer = await stub.invokeChaincode(chaincode, args, channel);
        return [answer.status, text(answer.payload) || ''];
    },
    transient: async (stub) => Object.fromEntries([...stub.getTransient()].sort().map(([name, value]) => [name, Buffer.from(value).toString()])),
    args: async (stub) => stub.getStringArgs(),
    channel: async (stub) => stub.getChannelID(),
    txid: async (stub) => stub.getTxID(),
    creator: async (stub) => {
        const creator = stub.getCreator();
        return [creator.mspid, crypto.createHash('sha256').update(creator.idBytes).digest('hex')];
    },
    timestamp: async (stub) => stub.getDateTimestamp().getTime(),
    binding: async (stub) => stub.getBinding(),
    // fabric-shim keeps the proposal in parts and not the bytes that were signed.
    proposal: async (stub) => crypto.createHash('sha256').update(stub.proposal.serializeBinary()).digest('hex'),
};

const functions = {
    run: async (stub, script) => {
        const results = [];
        for (const [name, ...args] of JSON.parse(script)) {
            try {
                results.push(await steps[name](stub, ...args));
            } catch (error) {
                results.push({error: error.message});
            }
        }
        return JSON.stringify(results);
    },
    fail: async (stub) => {
        await stub.putState('failed', Buffer.from('1'));
        stub.setEvent('Failed', Buffer.from('1'));
        throw new Error('as told');
    },
    empty: async () => '',
    add: async (stub, key) => {
        const value = Number(text(await stub.getState(key)) || '0') + 1;
        await stub.putState(key, Buffer.from(String(value)));
        return String(value);
    },
    write: async (stub, prefix, count) => {
        for (let number = 0; number < Number(count); number++) {
            const padded = String(number).padStart(6, '0');
            await stub.putState(prefix + padded, Buffer.from(`value ${padded}`));
        }
        return '';
    },
    read: async (stub, prefix, count) => {
        let found = 0;
        for (let number = 0; number < Number(count); number++) {
            if (text(await stub.getState(prefix + String(number).padStart(6, '0'))) !== null) {
                found += 1;
            }
        }
        return String(found);
    },
};

class Echo {
    async Init() {
        return shim.success();
    }

    async Invoke(stub) {
        const {fcn, params} = stub.getFunctionAndParameters();
        try {
            return shim.success(Buffer.from(await functions[fcn](stub, ...params)));
        } catch (error) {
            return shim.error(error.message);
        }
    }
}

const [ccid, address, key, cert, roots] = process.argv.slice(2);
const read = (path) => fs.readFileSync(path);
shim.server(new Echo(), {ccid, address, tlsProps: {key: read(key), cert: read(cert), clientCACerts: read(roots)}}).start();
