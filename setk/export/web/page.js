// The page: decodes the model, and connects microphone, files, meters and spectrograms to it.
"use strict";

const element = (id) => document.getElementById(id);
const bytesOf = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
const decibels = (power) => 10 * Math.log10(power + 1e-10);

// The text that gzip and base64 pack.
const unpack = async (base64) => new Response(new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("gzip"))).text();

// The model as engine.js needs it: programs of a hop and of a reset, and constants (int8 weights expanded).
function decodeModel(text) {
  const packed = JSON.parse(text);
  const model = { ...packed, program: new Int32Array(bytesOf(packed.program).buffer), reset: new Int32Array(bytesOf(packed.reset).buffer) };
  const constants = new Float32Array(packed.constantFloats), floats = new Float32Array(bytesOf(packed.floats).buffer);
  const weights = new Int8Array(bytesOf(packed.weights).buffer), steps = new Float32Array(bytesOf(packed.steps).buffer);
  constants.set(floats);
  let step = 0; // the first of the block
  for (const [first, count, length, columns] of packed.blocks) {
    for (let i = 0; i < count; i++) {
      constants[first + i] = weights[first - floats.length + i] * steps[step + Math.floor(i / length) * columns + (i % columns)];
    }
    step += (count / length) * columns;
  }
  return { ...model, constants };
}

let model = null; // once `compiled` is there
const compiled = unpack(element("model").textContent).then((text) => {
  model = decodeModel(text);
  return WebAssembly.compile(bytesOf(model.wasm));
});

const heard = () => document.querySelector("input[name=heard]:checked").value;
const limitGain = () => (element("limit").value >= 60 ? 0 : 10 ** (-element("limit").value / 20));

// Microphone.

const live = { context: null };

async function makeLive(context) {
  const source = [element("engine").textContent, element("worklet").textContent].join("\n");
  await context.audioWorklet.addModule(`data:text/javascript;base64,${btoa(unescape(encodeURIComponent(source)))}`);
  const options = { module: await compiled, model: { ...model, wasm: null }, realTime: context instanceof AudioContext };
  return new AudioWorkletNode(context, "setk", { outputChannelCount: [1], channelCount: 1, channelCountMode: "explicit", processorOptions: options });
}

async function startLive() {
  const context = new AudioContext({ latencyHint: "interactive" });
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 } });
  const node = await makeLive(context);
  const source = context.createMediaStreamSource(stream), before = context.createAnalyser(), after = context.createAnalyser();
  for (const analyser of [before, after]) Object.assign(analyser, { fftSize: 1024, smoothingTimeConstant: 0, minDecibels: -110, maxDecibels: -20 });
  source.connect(before);
  source.connect(node).connect(after).connect(context.destination);
  node.port.onmessage = ({ data }) => (data.delay === undefined ? showLevels(data) : status(`Running, ${Math.round(1000 * data.delay)} ms later`));
  Object.assign(live, { context, stream, node, before, after });
  applyListening();
  element("start").textContent = "Stop";
  for (const id of ["before", "after"]) element(id).getContext("2d").clearRect(0, 0, element(id).width, element(id).height);
  showPictures("live");
  drawLive();
}

async function stopLive() {
  live.stream.getTracks().forEach((track) => track.stop());
  live.node.port.onmessage = null;
  await live.context.close();
  live.context = null;
  element("start").textContent = "Start";
  status("Stopped");
  for (const [meter, text] of [["level-in", "text-in"], ["level-out", "text-out"], ["reduction", "text-reduction"], ["load", "text-load"]]) {
    element(meter).value = element(meter).min;
    element(text).textContent = "–";
  }
}

// The spectrograms are those of the microphone, or of a file, which has a position.
function showPictures(kind) {
  element("pictures").className = kind;
  document.querySelectorAll(".spectrum .top").forEach((label) => { label.textContent = `${model.rate / 2000} kHz`; });
}

const status = (text) => { element("status").textContent = text; };

function showLevels({ input, output, load, late }) {
  const reduction = Math.max(0, decibels(input) - decibels(output));
  show("level-in", "text-in", decibels(input), "dBFS");
  show("level-out", "text-out", decibels(output), "dBFS");
  show("reduction", "text-reduction", reduction, "dB");
  show("load", "text-load", 100 * load, "%");
  if (late) status("This device is too slow at the moment: the input passes unchanged");
}

function show(meter, text, value, unit) {
  element(meter).value = value;
  element(text).textContent = `${value.toFixed(0)} ${unit}`;
}

function drawLive() {
  if (!live.context) return;
  scroll(element("before"), live.before);
  scroll(element("after"), live.after);
  requestAnimationFrame(drawLive);
}

function scroll(canvas, analyser) {
  const bins = new Uint8Array(analyser.frequencyBinCount), pen = canvas.getContext("2d");
  analyser.getByteFrequencyData(bins);
  const used = Math.min(bins.length, Math.round(bins.length * model.rate / analyser.context.sampleRate));
  pen.drawImage(canvas, -2, 0);
  const column = pen.createImageData(2, canvas.height);
  for (let y = 0; y < canvas.height; y++) {
    const [r, g, b] = color(bins[Math.floor((1 - (y + 1) / canvas.height) * used)] / 255);
    for (let x = 0; x < 2; x++) column.data.set([r, g, b, 255], 4 * (2 * y + x));
  }
  pen.putImageData(column, canvas.width - 2, 0);
}

// Black, violet, orange, white.
function color(v) {
  const stops = [[0, 0, 0], [70, 20, 110], [190, 55, 80], [250, 140, 30], [255, 250, 220]];
  const at = Math.max(0, Math.min(0.999, v)) * (stops.length - 1), i = Math.floor(at);
  return stops[i].map((from, k) => Math.round(from + (at - i) * (stops[i + 1][k] - from)));
}

// Files.

const file = { context: null, noisy: null, enhanced: null, sources: [], started: 0, offset: 0, playing: false };

async function openFile(blob) {
  element("file-status").textContent = "Enhancing …";
  const module = await compiled;
  const decoder = new OfflineAudioContext(1, 1, model.rate);
  let decoded;
  try {
    decoded = await decoder.decodeAudioData(await blob.arrayBuffer());
  } catch {
    element("file-status").textContent = `${blob.name}: not an audio file that this browser reads; convert it to wav`;
    return;
  }
  stopFile();
  const started = performance.now();
  const noisy = [...Array(decoded.numberOfChannels).keys()].map((c) => decoded.getChannelData(c));
  const enhanced = noisy.map((channel) => enhanceSignal(module, model, channel));
  const seconds = (performance.now() - started) / 1000;
  Object.assign(file, { noisy, enhanced, offset: 0, name: blob.name || "recording" });
  element("player").hidden = false;
  moveTo(0);
  showPictures("file");
  element("file-status").textContent = `${file.name}: ${decoded.duration.toFixed(1)} s enhanced in ${seconds.toFixed(2)} s, ${(decoded.duration / seconds).toFixed(0)} times real time`;
  drawFile();
  saveLink();
}

function buffer(context, channels) {
  const made = context.createBuffer(channels.length, channels[0].length, model.rate);
  channels.forEach((channel, c) => made.copyToChannel(channel, c));
  return made;
}

function playFile() {
  file.context ||= new AudioContext();
  file.gains = {};
  for (const [name, channels] of [["noisy", file.noisy], ["enhanced", file.enhanced]]) {
    const source = file.context.createBufferSource(), gain = file.context.createGain();
    source.buffer = buffer(file.context, channels);
    source.connect(gain).connect(file.context.destination);
    file.gains[name] = gain;
    file.sources.push(source);
  }
  applyListening();
  // Both start at one time of the context's clock, so that the switch is sample-aligned.
  const start = file.context.currentTime + 0.05;
  file.sources.forEach((source) => source.start(start, file.offset));
  file.started = start - file.offset;
  file.playing = true;
  element("play").textContent = "Stop";
  file.sources[0].onended = () => { if (file.playing) { stopFile(); file.offset = 0; moveTo(0); } };
  follow();
}

function stopFile() {
  if (!file.playing) return;
  file.offset = Math.max(0, file.context.currentTime - file.started);
  file.playing = false;
  file.sources.forEach((source) => source.stop());
  file.sources = [];
  element("play").textContent = "Play";
}

const duration = () => file.noisy[0].length / model.rate;
const moveTo = (seconds) => {
  element("position").value = seconds / duration();
  element("pictures").style.setProperty("--at", seconds / duration());
};

function follow() {
  if (!file.playing) return;
  moveTo(file.context.currentTime - file.started);
  requestAnimationFrame(follow);
}

// What both the microphone and a file obey: the A/B switch and the limit of suppression.
function applyListening() {
  const limit = limitGain(), noisy = heard() === "noisy";
  element("text-limit").textContent = limit === 0 ? "no limit" : `${element("limit").value} dB`;
  if (live.node) live.node.port.postMessage({ limit, bypass: noisy });
  if (file.gains) {
    file.gains.noisy.gain.value = noisy ? 1 : limit;
    file.gains.enhanced.gain.value = noisy ? 0 : 1 - limit;
  }
}

function drawFile() {
  drawSpectrogram(element("before"), file.noisy[0]);
  drawSpectrogram(element("after"), file.enhanced[0]);
}

// Magnitudes of Hann-windowed frames of 512 samples, 80 dB of range below full scale.
function drawSpectrogram(canvas, signal) {
  const size = 512, pen = canvas.getContext("2d"), image = pen.createImageData(canvas.width, canvas.height);
  const real = new Float64Array(size), imag = new Float64Array(size);
  for (let x = 0; x < canvas.width; x++) {
    const start = Math.floor(x * Math.max(0, signal.length - size) / canvas.width);
    for (let i = 0; i < size; i++) {
      real[i] = (signal[start + i] || 0) * (0.5 - 0.5 * Math.cos(2 * Math.PI * i / size));
      imag[i] = 0;
    }
    fourier(real, imag);
    for (let y = 0; y < canvas.height; y++) {
      const bin = Math.floor((1 - (y + 1) / canvas.height) * size / 2);
      const level = decibels((real[bin] ** 2 + imag[bin] ** 2) / (size / 4) ** 2);
      image.data.set([...color((level + 90) / 80), 255], 4 * (y * canvas.width + x));
    }
  }
  pen.putImageData(image, 0, 0);
}

// In-place radix-2 transform.
function fourier(real, imag) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imag[i], imag[j]] = [imag[j], imag[i]];
    }
  }
  for (let size = 2; size <= n; size *= 2) {
    for (let start = 0; start < n; start += size) {
      for (let k = 0; k < size / 2; k++) {
        const angle = -2 * Math.PI * k / size, c = Math.cos(angle), s = Math.sin(angle), a = start + k, b = a + size / 2;
        const r = real[b] * c - imag[b] * s, t = real[b] * s + imag[b] * c;
        real[b] = real[a] - r;
        imag[b] = imag[a] - t;
        real[a] += r;
        imag[a] += t;
      }
    }
  }
}

function saveLink() {
  const channels = file.enhanced.length, frames = file.enhanced[0].length, view = new DataView(new ArrayBuffer(44 + 2 * channels * frames));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * channels * frames, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels, true);
  view.setUint32(24, model.rate, true);
  view.setUint32(28, 2 * channels * model.rate, true);
  view.setUint16(32, 2 * channels, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * channels * frames, true);
  const limit = limitGain();
  for (let i = 0; i < frames; i++) {
    for (let c = 0; c < channels; c++) {
      const value = file.enhanced[c][i] + limit * (file.noisy[c][i] - file.enhanced[c][i]);
      view.setInt16(44 + 2 * (i * channels + c), Math.max(-32768, Math.min(32767, Math.round(32768 * value))), true);
    }
  }
  const link = element("save");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([view], { type: "audio/wav" }));
  link.download = `${file.name.replace(/\.[^.]*$/, "")}.enhanced.wav`;
}

// Controls.

element("start").onclick = async () => {
  try {
    await (live.context ? stopLive() : startLive());
  } catch (error) {
    status(`The microphone cannot be used: ${error.message}`);
  }
};
element("file").onchange = ({ target }) => target.files[0] && openFile(target.files[0]);
element("play").onclick = () => (file.playing ? stopFile() : playFile());
function seek(part) {
  const playing = file.playing;
  stopFile();
  file.offset = part * duration();
  moveTo(file.offset);
  if (playing) playFile();
}
element("position").oninput = ({ target }) => seek(target.value);
element("pictures").onclick = (event) => {
  const picture = event.target.closest(".file canvas");
  if (picture) seek(event.offsetX / picture.clientWidth);
};
element("limit").oninput = applyListening;
element("limit").onchange = () => file.enhanced && saveLink();
document.querySelectorAll("input[name=heard]").forEach((radio) => { radio.onchange = applyListening; });
const drop = element("drop");
drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
};
document.onkeydown = (event) => {
  if (event.target.matches("button, input, a")) return;
  if (event.key === " " && file.noisy) {
    event.preventDefault();
    element("play").click();
  }
  if (event.key === "b") {
    document.querySelector(`input[name=heard][value=${heard() === "noisy" ? "enhanced" : "noisy"}]`).checked = true;
    applyListening();
  }
};
