// @sigstore/verify verifies every exported bundle, and refuses each of them altered.

import { createRequire } from 'node:module';
import { createPublicKey } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

const require = createRequire(path.join(process.env.INTEROP_MODULES, '_'));
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const facts = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const read = (name) => fs.readFileSync(path.join(facts.sigstore, name), 'utf8');
const trustedRoot = JSON.parse(read('trusted-root.json'));

// The signers' keys, by the hints that bundles name them by.
const keys = {};
for (const name of fs.readdirSync(path.join(facts.sigstore, 'keys'))) {
  const der = createPublicKey(read(`keys/${name}`)).export({ type: 'spki', format: 'der' });
  keys[path.basename(name, '.pem')] = { rawBytes: der };
}

function verify(bundle, root = trustedRoot, known = keys) {
  const material = toTrustMaterial(TrustedRoot.fromJSON(root), known);
  // Our bundles have neither certificates nor timestamps; inclusion in the log is required.
  const options = { ctlogThreshold: 0, tlogThreshold: 1, timestampThreshold: 0 };
  new Verifier(material, options).verify(toSignedEntity(bundleFromJSON(bundle)));
}

let [accepted, refused, wrong] = [0, 0, []];

function accepts(what, check) {
  try {
    check();
    accepted += 1;
  } catch (error) {
    wrong.push(`${what} was refused: ${error}`);
  }
}

function refuses(what, check) {
  try {
    check();
  } catch (error) {
    // Its own verdict, and not a mistake in what was handed to it.
    if (['VerificationError', 'PolicyError', 'ValidationError'].includes(error.constructor.name)) refused += 1;
    else wrong.push(`${what}: ${error.stack}`);
    return;
  }
  wrong.push(`${what} was accepted`);
}

// Another byte at a place in base64 that decodes to the same length.
function flip(text, at = 8) {
  const bytes = Buffer.from(text, 'base64');
  bytes[at] ^= 1;
  return bytes.toString('base64');
}

const tamperings = {
  payload: (b) => { b.dsseEnvelope.payload = flip(b.dsseEnvelope.payload, 40); },
  'payload type': (b) => { b.dsseEnvelope.payloadType = 'application/json'; },
  signature: (b) => { b.dsseEnvelope.signatures[0].sig = flip(b.dsseEnvelope.signatures[0].sig); },
  'log entry': (b) => { entry(b).canonicalizedBody = flip(entry(b).canonicalizedBody, 150); },
  'proof': (b) => { proof(b).hashes[0] = flip(proof(b).hashes[0]); },
  'shorter proof': (b) => { proof(b).hashes.pop(); },
  index: (b) => { proof(b).logIndex = String(Number(proof(b).logIndex) + 1); },
  'checkpoint size': (b) => { const c = proof(b).checkpoint; c.envelope = c.envelope.replace(/\n(\d+)\n/, (_, n) => `\n${Number(n) + 1}\n`); },
  'checkpoint signature': (b) => { const c = proof(b).checkpoint; c.envelope = c.envelope.replace(/(\u2014 \S+ \S{20})(.)/g, (_, a, x) => a + (x === 'A' ? 'B' : 'A')); },
  'log id': (b) => { entry(b).logId.keyId = flip(entry(b).logId.keyId); },
  hint: (b) => { b.verificationMaterial.publicKey.hint = '0'.repeat(64); },
  'no log entry': (b) => { b.verificationMaterial.tlogEntries = []; },
};
const entry = (bundle) => bundle.verificationMaterial.tlogEntries[0];
const proof = (bundle) => entry(bundle).inclusionProof;

const names = fs.readdirSync(facts.sigstore).filter((name) => name.endsWith('.sigstore.json'));
for (const name of names) {
  const bundle = JSON.parse(read(name));
  accepts(name, () => verify(bundle));
  for (const [what, tamper] of Object.entries(tamperings)) {
    const altered = structuredClone(bundle);
    tamper(altered);
    refuses(`${name} with another ${what}`, () => verify(altered));
  }
  const hint = bundle.verificationMaterial.publicKey.hint;
  const other = Object.keys(keys).find((key) => key !== hint);
  refuses(`${name} under another key`, () => verify(bundle, trustedRoot, { [hint]: keys[other] }));
  const root = structuredClone(trustedRoot);
  // A snapshot is signed with the log's own key: another log has neither that nor the signer's.
  const log = root.tlogs[0].publicKey.rawBytes;
  const texts = Object.values(keys).map((key) => key.rawBytes.toString('base64'));
  root.tlogs[0].publicKey.rawBytes = texts.find((text) => text !== log);
  refuses(`${name} in another log`, () => verify(bundle, root));
}

console.log(`  @sigstore/verify: accepted ${accepted}, refused ${refused} tampered with`);
for (const what of wrong) console.log(`  @sigstore/verify: WRONG: ${what}`);
process.exit(wrong.length || !accepted || !refused ? 1 : 0);
