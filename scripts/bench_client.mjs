// One measurement with the official Node client, unmodified: arguments as JSON in argv[2], one JSON document out.
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as grpc from '@grpc/grpc-js';
import { connect, hash, signers } from '@hyperledger/fabric-gateway';

const task = JSON.parse(process.argv[2]);
const profile = JSON.parse(fs.readFileSync(task.profile));
const organization = profile.organizations[profile.client.organization];
const peer = profile.peers[organization.peers[0]];
const client = new grpc.Client(
    peer.url.replace('grpcs://', ''),
    grpc.credentials.createSsl(Buffer.from(peer.tlsCACerts.pem)),
    { 'grpc.ssl_target_name_override': peer.grpcOptions['ssl-target-name-override'] },
);
const gateway = connect({
    client,
    identity: { mspId: organization.mspid, credentials: fs.readFileSync(task.certificate) },
    signer: signers.newPrivateKeySigner(crypto.createPrivateKey(fs.readFileSync(task.key))),
    hash: hash.sha256,
});
const contract = gateway.getNetwork(task.channel).getContract(task.chaincode);
let number = 0;
const system = gateway.getNetwork(task.channel).getContract('qscc');
const call = {
    evaluate: () => system.evaluateTransaction('GetChainInfo', task.channel),
    echo: () => contract.evaluateTransaction('Probe:echo', task.value),
    submit: () => contract.submitTransaction('Probe:put', `${task.prefix}-${number++}`, task.value),
}[task.call];

async function load(seconds) {
    const latencies = [];
    const end = performance.now() + seconds * 1000;
    const started = performance.now();
    const cpu = process.cpuUsage();
    await Promise.all(Array.from({ length: task.in_flight }, async () => {
        while (performance.now() < end) {
            const before = performance.now();
            await call();
            latencies.push(performance.now() - before);
        }
    }));
    const used = process.cpuUsage(cpu);
    return { latencies, elapsed_s: (performance.now() - started) / 1000, cpu_s: (used.user + used.system) / 1e6 };
}

await load(task.warm_s);
const { latencies, elapsed_s, cpu_s } = await load(task.seconds);
latencies.sort((a, b) => a - b);
gateway.close();
client.close();
console.log(JSON.stringify({
    calls: latencies.length,
    per_second: latencies.length / elapsed_s,
    median_ms: latencies[Math.floor(latencies.length / 2)],
    p99_ms: latencies[Math.floor(0.99 * (latencies.length - 1))],
    cpu_ms: 1000 * cpu_s / latencies.length,
}));
