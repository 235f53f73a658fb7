// Usage: node verify.cjs BASE_URL ROOT_FILE SCRATCH_FOLDER BUNDLE_NAME
// Prints one JSON line: {"ok":true,...} with what tuf-js verified, or {"ok":false,"error":...}.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { Updater } = require("tuf-js");

async function main([base, root, scratch, name]) {
  const metadataDir = path.join(scratch, "metadata");
  const targetDir = path.join(scratch, "targets");
  fs.mkdirSync(metadataDir, { recursive: true });
  fs.mkdirSync(targetDir, { recursive: true });
  if (!fs.existsSync(path.join(metadataDir, "root.json"))) {
    fs.copyFileSync(root, path.join(metadataDir, "root.json"));
  }
  const updater = new Updater({
    metadataDir,
    targetDir,
    metadataBaseUrl: `${base}/metadata`,
    targetBaseUrl: `${base}/targets`,
    config: { fetchRetries: 0 },
  });
  await updater.refresh();
  const info = await updater.getTargetInfo(name);
  if (!info) throw new Error(`no target ${name}`);
  const file = await updater.downloadTarget(info, path.join(targetDir, "downloaded"));
  return { ok: true, length: info.length, hashes: info.hashes, custom: info.custom, bytes: fs.statSync(file).size };
}

main(process.argv.slice(2)).then(
  (found) => console.log(JSON.stringify(found)),
  (error) => console.log(JSON.stringify({ ok: false, error: `${error.name}: ${error.message}` })),
);
