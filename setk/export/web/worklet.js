// The audio worklet: a live chain per channel, strength, bypass, and levels to the page ten times a second.
class SetkProcessor extends AudioWorkletProcessor {
  constructor(options) {
    super();
    const { module, model, realTime } = options.processorOptions;
    this.realTime = realTime;  // a signal that is rendered has no frames that come late
    this.chain = new LiveChain(module, model, sampleRate);
    this.limit = 0;       // linear gain of the aligned input in the output: 0 for full suppression
    this.bypass = false;
    this.restUntil = 0;   // while frames come late, the input passes unchanged until this time
    this.sums = { input: 0, output: 0, count: 0, busy: 0 };
    this.wet = new Float32Array(128);
    this.dry = new Float32Array(128);
    this.port.onmessage = ({ data }) => Object.assign(this, data);
    this.port.postMessage({ delay: this.chain.delaySamples / sampleRate });
  }

  process([input], [output]) {
    const samples = input[0] || new Float32Array(output[0].length);
    if (samples.length > this.wet.length) {
      this.wet = new Float32Array(samples.length);
      this.dry = new Float32Array(samples.length);
    }
    const clock = globalThis.performance || Date, started = clock.now();
    this.chain.process(samples, this.wet, this.dry);
    this.sums.busy += clock.now() - started;
    const passing = this.bypass || currentTime < this.restUntil;
    for (let i = 0; i < samples.length; i++) {
      const value = passing ? this.dry[i] : this.wet[i] + this.limit * (this.dry[i] - this.wet[i]);
      output.forEach((channel) => { channel[i] = value; });
      this.sums.input += this.dry[i] ** 2;
      this.sums.output += this.wet[i] ** 2;
    }
    this.sums.count += samples.length;
    if (this.sums.count >= sampleRate / 10) this.report();
    return true;
  }

  report() {
    const { input, output, count, busy } = this.sums, load = busy / (1000 * count / sampleRate);
    this.loads = [...(this.loads || []), load].slice(-10);
    const mean = this.loads.reduce((a, b) => a + b) / this.loads.length;
    if (this.realTime && mean > 0.9 && this.loads.length === 10) {
      this.restUntil = currentTime + 2;
      this.loads = [];
    }
    this.port.postMessage({ input: input / count, output: output / count, load: mean, late: currentTime < this.restUntil });
    this.sums = { input: 0, output: 0, count: 0, busy: 0 };
  }
}
registerProcessor("setk", SetkProcessor);
