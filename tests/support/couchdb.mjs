// A stand-in for CouchDB on PouchDB's HTTP server, in memory: `node couchdb.mjs USER PASSWORD PORT...` serves one database
// server at each port of the loopback address and says "ready" when all listen. It is enough for a peer of Fabric to keep its
// state in; it proves nothing about CouchDB's own behaviour under load, failures or restarts.
import { fork } from "node:child_process";
import express from "express";
import expressPouchDB from "express-pouchdb";
import memory from "pouchdb-adapter-memory";
import PouchDB from "pouchdb-core";
import find from "pouchdb-find";
import mapreduce from "pouchdb-mapreduce";
import replication from "pouchdb-replication";

const [user, password, ...ports] = process.argv.slice(2);
const expected = `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
PouchDB.plugin(memory).plugin(mapreduce).plugin(replication).plugin(find);

// The databases of one process are the same for all its servers, so each server is a process of its own.
if (ports.length > 1) {
  let waiting = ports.length;
  for (const port of ports) {
    const child = fork(process.argv[1], [user, password, port]);
    child.on("message", () => --waiting === 0 && console.log("ready"));
    process.on("exit", () => child.kill());
  }
  process.on("SIGTERM", () => process.exit(0));
  process.stdin.resume().on("end", () => process.exit(0));
} else {
  serve(Number(ports[0]));
  process.on("disconnect", () => process.exit(0));
}

function serve(port) {
  const app = express();
  app.use((request, response, next) => {

    if (request.path === "/") return response.json({ couchdb: "Welcome", version: "3.4.2", vendor: { name: "stand-in" } });
    if (request.headers.authorization !== expected) return response.status(401).json({ error: "unauthorized" });
    // Who may do what is CouchDB's own business, and Fabric asks only whether it is settled.
    if (/^\/_(users|replicator|global_changes)(\/_security)?$/.test(request.path)) {
      return response.json({ db_name: request.path.split("/")[1], update_seq: "0", ok: true });
    }
    if (/^\/[^/]+\/_security$/.test(request.path)) return response.json({ ok: true });
    const revision = request.headers["if-match"];
    if (revision) request.url += `${request.url.includes("?") ? "&" : "?"}rev=${revision.replaceAll('"', "")}`;
    const send = response.send.bind(response);
    response.send = (body) => send(asCouchDB(request, response, body));
    return next();
  });
  app.use("/", expressPouchDB(PouchDB.defaults({ adapter: "memory" }), { mode: "minimumForPouchDB", overrideMode: { include: ["routes/find"] }, inMemoryConfig: true }));
  app.listen(port, "127.0.0.1", () => process.send?.("listens"));
}

// Where CouchDB's answers differ from PouchDB's: a document's revision is its ETag, and attachments come as further parts.
function asCouchDB(request, response, body) {
  let document;
  try {
    document = JSON.parse(body);
  } catch {
    return body;
  }
  const revision = document?._rev ?? document?.rev;
  if (revision) response.set("ETag", `"${revision}"`);
  const attachments = Object.entries(document?._attachments ?? {});
  if (request.method !== "GET" || !request.query.attachments || attachments.length === 0) return body;
  const boundary = "d41d8cd98f00b204";
  const described = attachments.map(([name, { data, ...rest }]) => [name, { ...rest, follows: true, length: Buffer.from(data, "base64").length }]);
  const first = JSON.stringify({ ...document, _attachments: Object.fromEntries(described) });
  const parts = [Buffer.from(`--${boundary}\r\nContent-Type: application/json\r\n\r\n${first}`)];
  for (const [name, { data, content_type: type }] of attachments) {
    const head = `Content-Disposition: attachment; filename="${name}"\r\nContent-Type: ${type}`;
    parts.push(Buffer.from(`\r\n--${boundary}\r\n${head}\r\n\r\n`), Buffer.from(data, "base64"));
  }
  response.set("Content-Type", `multipart/related; boundary="${boundary}"`);
  return Buffer.concat([...parts, Buffer.from(`\r\n--${boundary}--`)]);
}
