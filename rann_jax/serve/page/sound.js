// Sound in the browser: record it, and write what the server's decoder does not read as WAV.

/** Starts to record; resolves to a function that stops and resolves to a WAV file. */
export async function startRecording() {
  // A recogniser wants the room as it is: no processing that is made for speech.
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  const stopped = new Promise((resolve) => { recorder.onstop = resolve; });
  recorder.start();
  return async () => {
    recorder.stop();
    await stopped;
    stream.getTracks().forEach((track) => track.stop());
    return toWav(new Blob(parts), "recording.wav");
  };
}

/** Decodes with the browser's own decoder (AAC, WebM, ...): a mono WAV file; rejects what is no sound. */
export async function toWav(blob, name) {
  const context = new AudioContext();
  try {
    const sound = await context.decodeAudioData(await blob.arrayBuffer());
    const mono = new Float32Array(sound.length);
    for (let c = 0; c < sound.numberOfChannels; c += 1) {
      sound.getChannelData(c).forEach((sample, i) => { mono[i] += sample / sound.numberOfChannels; });
    }
    return new File([wav(mono, sound.sampleRate)], name, { type: "audio/wav" });
  } finally {
    context.close();
  }
}

/** 16-bit PCM in a RIFF file. */
function wav(samples, rate) {
  const bytes = 2 * samples.length;
  const view = new DataView(new ArrayBuffer(44 + bytes));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  samples.forEach((sample, i) => {
    view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true);
  });
  return view.buffer;
}
