// Run by test_sherpa.py: node sherpa.js MODEL.onnx IN.f32 OUT.f32 …: raw float samples at 16 kHz through the npm package sherpa-onnx.
"use strict";
const fs = require("fs");
const sherpa = require("sherpa-onnx");

const [model, ...files] = process.argv.slice(2);
const denoiser = sherpa.createOnlineSpeechDenoiser({ model: { gtcrn: { model }, numThreads: 1, debug: 0, provider: "cpu" } });
const BLOCK = 777;
for (let i = 0; i < files.length; i += 2) {
  const bytes = fs.readFileSync(files[i]), samples = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  denoiser.reset();
  const parts = [];
  for (let at = 0; at < samples.length; at += BLOCK) parts.push(denoiser.run(samples.slice(at, at + BLOCK), 16000).samples);
  parts.push(denoiser.flush().samples);
  fs.writeFileSync(files[i + 1], Buffer.concat(parts.map((part) => Buffer.from(part.buffer, part.byteOffset, part.byteLength))));
}
