// The model: one stream of it in WebAssembly, a resampler, and both together. Runs in the page and in the audio worklet.
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

// Samples between two rates by windowed sinc interpolation (Kaiser, beta 9), causal, in blocks of any size.
// Output 0 is at the time of input 0; an output is known `half` input samples after its time.
class Resampler {
  constructor(from, to) {
    this.step = from / to;
    const cutoff = Math.min(1, to / from) * 0.965;
    this.half = Math.ceil(36 / cutoff);
    this.phases = 512;
    this.buffer = new Float32Array(2 * this.half + 8192);
    this.filled = this.half - 1;   // silence before the first sample
    this.position = this.half - 1; // of the next output, in the buffer
    const taps = 2 * this.half;
    this.table = new Float32Array((this.phases + 1) * taps);
    for (let p = 0; p <= this.phases; p++) {
      let sum = 0;
      for (let k = 0; k < taps; k++) {
        const x = k - this.half + 1 - p / this.phases;
        const w = Resampler.kaiser(x / this.half) * Resampler.sinc(cutoff * x);
        this.table[p * taps + k] = w;
        sum += w;
      }
      for (let k = 0; k < taps; k++) this.table[p * taps + k] /= sum;
    }
  }

  static sinc(x) {
    return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  }

  static kaiser(x) {
    return Math.abs(x) > 1 ? 0 : Resampler.bessel(9 * Math.sqrt(1 - x * x)) / Resampler.bessel(9);
  }

  static bessel(x) {
    let sum = 1, term = 1;
    for (let k = 1; k < 40; k++) {
      term *= (x / (2 * k)) ** 2;
      sum += term;
    }
    return sum;
  }

  // Appends the samples and calls emit(value) for every output sample that is known now.
  push(samples, emit) {
    const taps = 2 * this.half;
    for (let at = 0; at < samples.length; at += 4096) {
      const block = samples.subarray(at, at + 4096);
      this.buffer.set(block, this.filled);
      this.filled += block.length;
      while (this.position + this.half < this.filled) {
        const base = Math.floor(this.position), fraction = (this.position - base) * this.phases;
        const row = Math.floor(fraction), mix = fraction - row, start = base - this.half + 1;
        const a = row * taps, b = a + taps;
        let low = 0, high = 0;
        for (let k = 0; k < taps; k++) {
          low += this.buffer[start + k] * this.table[a + k];
          high += this.buffer[start + k] * this.table[b + k];
        }
        emit(low + mix * (high - low));
        this.position += this.step;
      }
      const used = Math.floor(this.position) - this.half + 1;
      this.buffer.copyWithin(0, used, this.filled);
      this.filled -= used;
      this.position -= used;
    }
  }
}

// A queue of samples in a ring.
class Ring {
  constructor(size) {
    this.data = new Float32Array(size);
    this.start = 0;
    this.length = 0;
  }

  push(value) {
    this.data[(this.start + this.length) % this.data.length] = value;
    if (this.length < this.data.length) this.length++;
    else this.start = (this.start + 1) % this.data.length;
  }

  shift() {
    if (this.length === 0) return 0;
    const value = this.data[this.start];
    this.start = (this.start + 1) % this.data.length;
    this.length--;
    return value;
  }
}

// Live enhancement at any rate: blocks of any size in, as many samples out, `delay` seconds late, with the input delayed
// by the same time next to it.
class LiveChain {
  constructor(module, model, rate) {
    this.denoiser = new Denoiser(module, model);
    this.hop = model.hop;
    this.same = rate === model.rate;
    this.collected = new Float32Array(model.hop);
    this.enhanced = new Float32Array(model.hop);
    this.count = 0;
    this.out = new Ring(Math.ceil(rate));
    this.dry = new Ring(Math.ceil(rate));
    const wait = this.same ? 0 : this.resamplers(rate, model.rate);
    // A block may end anywhere in a hop, so that one hop is always kept in reserve.
    const reserve = Math.ceil(this.hop * rate / model.rate + wait);
    for (let i = 0; i < reserve; i++) this.out.push(0);
    this.delaySamples = reserve + Math.round(model.delay * rate / model.rate);
    for (let i = 0; i < this.delaySamples; i++) this.dry.push(0);
  }

  // Makes the two resamplers; the samples at `rate` for which they hold an output back.
  resamplers(rate, modelRate) {
    this.down = new Resampler(rate, modelRate);
    this.up = new Resampler(modelRate, rate);
    return this.down.half + (this.up.half + 1) * rate / modelRate + 2;
  }

  // Reads `input`, writes as many samples: enhanced to `wet`, the aligned input to `dry`.
  process(input, wet, dry) {
    const sink = (value) => this.out.push(value);
    const collect = (value) => {
      this.collected[this.count++] = value;
      if (this.count < this.hop) return;
      this.count = 0;
      this.denoiser.process(this.collected, this.enhanced);
      if (this.same) this.enhanced.forEach(sink);
      else this.up.push(this.enhanced, sink);
    };
    if (this.same) input.forEach(collect);
    else this.down.push(input, collect);
    for (let i = 0; i < input.length; i++) {
      this.dry.push(input[i]);
      wet[i] = this.out.shift();
      dry[i] = this.dry.shift();
    }
  }
}

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
