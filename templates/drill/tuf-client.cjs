// Usage: node tuf-client.cjs BASE_URL ROOT_FILE SCRATCH_FOLDER FILE_NAME AHEAD_MS
// One update by tuf-js, found through NODE_PATH. Prints one JSON line: {"ok":true,...} with what it verified, or
// {"ok":false,"error":...}. AHEAD_MS moves its clock, for metadata that nobody renews.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const ahead = Number(process.argv[6] || 0);
if (ahead) {
  const RealDate = Date;
  global.Date = class extends RealDate {
    constructor(...given) {
      super(...(given.length ? given : [RealDate.now() + ahead]));
    }
    static now() {
      return RealDate.now() + ahead;
    }
  };
}

async function main([base, root, scratch, name]) {
  const { Updater } = require("tuf-js");
  const metadataDir = path.join(scratch, "metadata");
  const targetDir = path.join(scratch, "files");
  fs.mkdirSync(metadataDir, { recursive: true });
  fs.mkdirSync(targetDir, { recursive: true });
  const trusted = path.join(metadataDir, "root.json");
  if (!fs.existsSync(trusted)) fs.copyFileSync(root, trusted);
  const updater = new Updater({
    metadataDir,
    targetDir,
    metadataBaseUrl: `${base}/metadata`,
    targetBaseUrl: `${base}/targets`,
    config: { fetchRetries: 0 },
  });
  await updater.refresh();
  const info = await updater.getTargetInfo(name);
  if (!info) throw new Error(`no file ${name} in the verified lists`);
  const file = await updater.downloadTarget(info, path.join(targetDir, "downloaded"));
  return { ok: true, length: info.length, hashes: info.hashes, bytes: fs.statSync(file).size };
}

main(process.argv.slice(2)).then(
  (found) => console.log(JSON.stringify(found)),
  (error) => console.log(JSON.stringify({ ok: false, error: `${error.name}: ${error.message}` })),
);
