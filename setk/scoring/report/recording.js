"use strict";
// Both signals run from one clock, and a gain decides which is heard: the switch is instant and sample-aligned.
(() => {
  const element = (id) => document.getElementById(id);
  const names = ["before", "after"];
  const position = element("position"), heads = document.querySelectorAll(".playhead");
  let context, buffers, gains, sources = [], startedAt = 0, from = 0, heard = "before", playing = false;

  const bytes = (id) => Uint8Array.from(atob(element(id).getAttribute("src").split(",")[1]), (c) => c.charCodeAt(0)).buffer;

  async function prepare() {
    context = new AudioContext();
    buffers = await Promise.all(names.map((name) => context.decodeAudioData(bytes(`sound-${name}`))));
    gains = names.map((name) => {
      const gain = context.createGain();
      gain.gain.value = name === heard ? 1 : 0;
      gain.connect(context.destination);
      return gain;
    });
  }

  function hear(name) {
    heard = name;
    names.forEach((other, i) => {
      element(other).setAttribute("aria-pressed", String(other === name));
      // A few milliseconds, so that the switch does not click.
      if (gains) gains[i].gain.setTargetAtTime(other === name ? 1 : 0, context.currentTime, 0.003);
    });
  }

  const now = () => (playing ? Math.min(from + context.currentTime - startedAt, buffers[0].duration) : from);

  function show() {
    const at = now();
    position.value = at;
    element("time").textContent = `${at.toFixed(1)} s`;
    for (const head of heads) {
      head.hidden = false;
      head.style.left = `${(100 * at) / Number(position.max)}%`;
    }
    if (playing && at >= buffers[0].duration) { stop(); from = 0; }
    if (playing) requestAnimationFrame(show);
  }

  function stop() {
    from = now();
    playing = false;
    for (const source of sources) source.stop();
    sources = [];
    element("play").textContent = "Play";
  }

  async function play() {
    if (!context) await prepare();
    await context.resume();
    startedAt = context.currentTime + 0.02;
    sources = buffers.map((buffer, i) => {
      const source = context.createBufferSource();
      source.buffer = buffer;
      source.connect(gains[i]);
      source.start(startedAt, from);
      return source;
    });
    playing = true;
    element("play").textContent = "Stop";
    show();
  }

  const toggle = () => (playing ? stop() : play());
  element("play").addEventListener("click", toggle);
  for (const name of names) element(name).addEventListener("click", () => hear(name));
  position.addEventListener("input", () => {
    const again = playing;
    if (again) stop();
    from = Number(position.value);
    if (again) play(); else show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && !["BUTTON", "AUDIO"].includes(event.target.tagName)) { event.preventDefault(); toggle(); }
    if (event.key === "b" || event.key === "a") hear(event.key === "b" ? "before" : "after");
  });
  element("player").hidden = false;
})();
