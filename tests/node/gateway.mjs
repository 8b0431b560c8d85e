// Drives a Fabric gateway with the unmodified official client and prints one JSON document.
// Arguments: connection profile, certificate, private key, waybill number.
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as grpc from '@grpc/grpc-js';
import { connect, hash, signers } from '@hyperledger/fabric-gateway';

const [profilePath, certificatePath, keyPath, number] = process.argv.slice(2);
const profile = JSON.parse(fs.readFileSync(profilePath));
const organization = profile.organizations[profile.client.organization];
const peer = profile.peers[organization.peers[0]];
const client = new grpc.Client(
    peer.url.replace('grpcs://', ''),
    grpc.credentials.createSsl(Buffer.from(peer.tlsCACerts.pem)),
    { 'grpc.ssl_target_name_override': peer.grpcOptions['ssl-target-name-override'] },
);
const gateway = connect({
    client,
    identity: { mspId: organization.mspid, credentials: fs.readFileSync(certificatePath) },
    signer: signers.newPrivateKeySigner(crypto.createPrivateKey(fs.readFileSync(keyPath))),
    hash: hash.sha256,
});
const utf8 = new TextDecoder();
const seen = {};
try {
    const network = gateway.getNetwork('logistics');
    const contract = network.getContract('logistics');
    const note = {
        number, consignor: 'Guiyang Tea Works', consignee: 'Zunyi Stores', origin: 'Guiyang', destination: 'Zunyi',
        goods: 'tea', packages: 12, weight_kg: 240,
    };
    const submitted = await contract.submitAsync('Waybills:issue', { arguments: [JSON.stringify(note)] });
    const status = await submitted.getStatus();
    seen.status = { code: status.code, successful: status.successful, block: Number(status.blockNumber), id: status.transactionId };
    seen.result = JSON.parse(utf8.decode(submitted.getResult()));
    seen.read = JSON.parse(utf8.decode(await contract.evaluateTransaction('Waybills:read', number)));
    const events = await network.getChaincodeEvents('logistics', { startBlock: status.blockNumber });
    for await (const event of events) {
        seen.event = { name: event.eventName, id: event.transactionId, payload: JSON.parse(utf8.decode(event.payload)) };
        break;
    }
    events.close();
    try {
        await contract.submitTransaction('Waybills:issue', JSON.stringify(note));
    } catch (error) {
        seen.refusal = { kind: error.constructor.name, code: error.code, details: error.details.map((detail) => detail.message) };
    }
    try {
        await contract.evaluateTransaction('Waybills:read', 'GY-999999');
    } catch (error) {
        seen.missing = { kind: error.constructor.name, message: error.message };
    }
} finally {
    gateway.close();
    client.close();
}
console.log(JSON.stringify(seen));
