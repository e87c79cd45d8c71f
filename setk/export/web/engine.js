// The model in WebAssembly: on complete signals at its rate, and live at any rate. Runs in the page and in the audio worklet.
"use strict";

// One stream of the model. `process` reads and writes hops of model.hop samples at model.rate.
class Denoiser {
  constructor(module, model) {
    const memory = new WebAssembly.Memory({ initial: model.pages });
    this.instance = new WebAssembly.Instance(module, { env: { memory } });
    this.model = model;
    this.memory = memory;
    // The kernels' own data and stack are below the heap.
    let top = this.instance.exports.__heap_base.value;
    const place = (bytes) => {
      const at = (top + 63) & ~63;
      top = at + bytes;
      return at;
    };
    this.program = place(4 * model.program.length);
    this.constants = place(4 * model.constants.length);
    this.start = place(4 * model.reset.length);
    this.state = place(4 * model.stateFloats);
    this.scratch = place(4 * model.scratch);
    this.input = place(4 * model.hop);
    this.output = place(4 * model.hop);
    if (top > memory.buffer.byteLength) throw new Error("the model needs more memory than the page reserved");
    new Int32Array(memory.buffer, this.program, model.program.length).set(model.program);
    new Int32Array(memory.buffer, this.start, model.reset.length).set(model.reset);
    new Float32Array(memory.buffer, this.constants, model.constants.length).set(model.constants);
    this.hopIn = new Float32Array(memory.buffer, this.input, model.hop);
    this.hopOut = new Float32Array(memory.buffer, this.output, model.hop);
    this.reset();
  }

  // Runs a program once.
  run(program, words) {
    this.instance.exports.setk_run(program, words, this.constants, this.state, this.scratch, this.input, this.output, 1, this.model.hop);
  }

  reset() {
    this.run(this.start, this.model.reset.length);
  }

  process(samples, out) {
    this.hopIn.set(samples);
    this.run(this.program, this.model.program.length);
    out.set(this.hopOut);
  }
}

// Live enhancement at any rate (setk/native/live.h): blocks of any size in, as many samples out, `delaySamples` late, with the
// input delayed by the same time next to it.
class LiveChain {
  constructor(module, model, rate) {
    const denoiser = new Denoiser(module, model), { exports } = denoiser.instance, floats = exports.setk_live_floats(rate, model.rate, model.hop, model.delay);
    // The stream and three blocks lie behind the model.
    this.stream = denoiser.memory.buffer.byteLength;
    const blocks = this.stream + 4 * ((floats + 15) & ~15), end = blocks + 3 * 4 * LiveChain.BLOCK;
    denoiser.memory.grow(Math.ceil((end - this.stream) / 65536));
    this.places = [0, 1, 2].map((i) => blocks + 4 * i * LiveChain.BLOCK);
    [this.input, this.wet, this.dry] = this.places.map((place) => new Float32Array(denoiser.memory.buffer, place, LiveChain.BLOCK));
    const { program, constants, state, scratch } = denoiser;
    this.delaySamples = exports.setk_live_start(this.stream, rate, model.rate, model.hop, model.delay, program, model.program.length, constants, state, scratch);
    this.run = exports.setk_live;
  }

  // Reads `input`, writes as many samples: enhanced to `wet`, the aligned input to `dry`.
  process(input, wet, dry) {
    for (let at = 0; at < input.length; at += LiveChain.BLOCK) {
      const count = Math.min(LiveChain.BLOCK, input.length - at);
      this.input.set(input.subarray(at, at + count));
      this.run(this.stream, ...this.places, count);
      wet.set(this.wet.subarray(0, count), at);
      dry.set(this.dry.subarray(0, count), at);
    }
  }
}
LiveChain.BLOCK = 128;

// A complete signal at the model's rate: as many samples, aligned with the input.
function enhanceSignal(module, model, signal) {
  const denoiser = new Denoiser(module, model), hops = Math.ceil((signal.length + model.delay) / model.hop);
  const out = new Float32Array(hops * model.hop), hop = new Float32Array(model.hop), enhanced = new Float32Array(model.hop);
  for (let i = 0; i < hops; i++) {
    hop.fill(0);
    hop.set(signal.subarray(i * model.hop, (i + 1) * model.hop));
    denoiser.process(hop, enhanced);
    out.set(enhanced, i * model.hop);
  }
  return out.slice(model.delay, model.delay + signal.length);
}
