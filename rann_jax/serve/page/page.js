// From a dropped, chosen or recorded sound to what the server says of it. Text enters the page as text alone.

import { drawConflict, drawSeconds, drawSpectrogram, drawTimeline, windowAt } from "./draw.js";
import { startRecording, toWav } from "./sound.js";

const $ = (id) => document.getElementById(id);
const TAGS = 8;
let limits = { bytes: Infinity };
let shown = null; // the answer on the page
let stop = null; // ends the recording that goes on

async function describe() {
  const response = await fetch("api/model");
  const about = await response.json();
  limits = about.limits;
  const rule = { wa: "average", ds: "Dempster-Shafer", ids: "improved Dempster-Shafer", murphy: "Murphy", deng: "Deng" };
  const models = about.models.join(" + ") + (about.rule ? `, fused by ${rule[about.rule] ?? about.rule}` : "");
  $("about").textContent = `${models}: ${about.labels.length} classes, windows of ${about.window_seconds} s`;
  $("limits").textContent = `WAV, FLAC, Ogg, MP3 and more, up to ${about.limits.seconds / 60} minutes and ${about.limits.bytes / 1e6} MB`;
  $("endpoint").textContent = new URL("api/tag", location.href).href;
}

async function ask(file) {
  if (file.size > limits.bytes) throw new Error(`the file is larger than ${limits.bytes / 1e6} MB`);
  const response = await fetch(`api/tag?top=${TAGS}&spectrogram=true`, { method: "POST", body: file });
  const answer = await response.json().catch(() => ({ error: `the server answered with status ${response.status}` }));
  return { answer, status: response.status };
}

async function hear(file) {
  say(`Listening to ${file.name} …`, "busy");
  try {
    let heard = file;
    let { answer, status } = await ask(file);
    if (status === 422 && answer.error.startsWith("not decodable")) {
      // The browser may know the format: AAC, or the sound of a video.
      heard = await toWav(file, file.name).catch(() => null);
      if (heard) ({ answer, status } = await ask(heard));
    }
    if (answer.error) throw new Error(answer.error);
    show(answer, heard ?? file);
    say("");
  } catch (error) {
    say(`${file.name}: ${error.message}`, "wrong");
  }
}

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

function show(answer, file) {
  shown = answer;
  document.body.classList.add("heard");
  $("result").hidden = false;
  $("name").textContent = file.name;
  $("facts").textContent = `${answer.seconds.toFixed(2)} s at ${answer.sample_rate / 1000} kHz`;
  URL.revokeObjectURL($("player").src);
  $("player").src = URL.createObjectURL(file);
  const fused = "conflict" in answer;
  $("fusion").hidden = $("conflict-row").hidden = !fused;
  showTags(answer, fused);
  if (fused) {
    $("conflict").textContent = answer.conflict.toFixed(2);
    $("conflict-bar").style.width = `${100 * answer.conflict}%`;
  }
  draw();
}

/** A bar for each tag; of an ensemble what each model says by itself beside it. */
function showTags({ tags, models = [] }, fused) {
  const table = element("div", "table");
  const columns = models.length ? ` ${"minmax(56px, max-content) ".repeat(models.length)}` : "";
  table.style.gridTemplateColumns = `max-content minmax(60px, 1fr) 52px${columns}`;
  if (fused) {
    table.append(element("span", "head"), element("span", "head of-bar", "fused"), element("span", "head"));
    models.forEach((name) => table.append(element("span", "head", name)));
  }
  tags.forEach(({ label, probability, by_model: byModel = [] }) => {
    const meter = element("div", "meter");
    meter.append(element("i"));
    meter.firstChild.style.width = `${100 * probability}%`;
    table.append(element("b", "", label), meter, element("span", "number", percent(probability)));
    byModel.forEach((own) => table.append(element("span", "number single", percent(own))));
  });
  $("tags").replaceChildren(table);
}

function draw() {
  if (!shown) return;
  const { seconds, spectrogram, timeline } = shown;
  drawSpectrogram($("spectrogram"), $("frequencies"), spectrogram, seconds);
  drawTimeline($("timeline"), $("classes"), timeline, seconds);
  if ("conflict" in timeline) drawConflict($("conflict-line"), timeline, seconds);
  drawSeconds($("seconds"), seconds);
  movePlayhead();
}

function movePlayhead() {
  if (!shown) return;
  const share = Math.min(1, $("player").currentTime / shown.seconds);
  const picture = $("spectrogram");
  const top = picture.offsetTop;
  $("playhead").style.top = `${top}px`;
  $("playhead").style.left = `${picture.offsetLeft + share * picture.clientWidth}px`;
  if (!$("player").paused) requestAnimationFrame(movePlayhead);
}

function secondOf(event) {
  const box = event.target.getBoundingClientRect();
  return (shown.seconds * (event.clientX - box.left)) / box.width;
}

/** What is most probable at the second under the pointer. */
function hint(event) {
  const { timeline, seconds } = shown;
  const second = secondOf(event);
  const w = windowAt(timeline, seconds, second);
  const row = timeline.probabilities[w];
  const best = row.indexOf(Math.max(...row));
  const conflict = "conflict" in timeline ? `, conflict ${timeline.conflict[w].toFixed(2)}` : "";
  const box = $("time").getBoundingClientRect();
  $("hint").textContent = `${second.toFixed(2)} s: ${timeline.labels[best]} ${percent(row[best])}${conflict}`;
  $("hint").style.left = `${event.clientX - box.left}px`;
  $("hint").style.top = `${event.clientY - box.top}px`;
  $("hint").hidden = false;
}

async function toggleRecording() {
  try {
    if (stop) await hear(await endRecording());
    else await beginRecording();
  } catch (error) {
    say(`Cannot record: ${error.message}`, "wrong");
  }
}

async function beginRecording() {
  $("record").disabled = true; // while permission is asked for, a second click would start a second recorder
  try {
    stop = await startRecording();
  } finally {
    $("record").disabled = false;
  }
  $("record").classList.add("recording");
  const begin = performance.now();
  const tick = () => {
    if (!stop) return;
    $("record-text").textContent = `Stop, ${((performance.now() - begin) / 1000).toFixed(0)} s`;
    setTimeout(tick, 250);
  };
  tick();
}

/** Resolves to a WAV file; rejects where the browser cannot decode what it recorded. */
function endRecording() {
  const finish = stop;
  stop = null;
  $("record").classList.remove("recording");
  $("record-text").textContent = "Record";
  return finish();
}

function percent(p) {
  return `${(100 * p).toFixed(p >= 0.0005 && p < 0.0995 ? 1 : 0)} %`;
}

function element(name, kind = "", text = "") {
  const made = document.createElement(name);
  made.className = kind;
  made.textContent = text;
  return made;
}

$("choose").onclick = () => $("file").click();
$("file").onchange = () => { if ($("file").files.length) hear($("file").files[0]); $("file").value = ""; };
$("record").onclick = toggleRecording;
$("record").disabled = !navigator.mediaDevices;
document.ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
document.ondragleave = (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); };
document.ondrop = (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files.length) hear(event.dataTransfer.files[0]);
};
$("player").onplay = $("player").onseeked = movePlayhead;
for (const canvas of document.querySelectorAll("canvas")) {
  canvas.onclick = (event) => { $("player").currentTime = secondOf(event); };
  canvas.onmousemove = hint;
  canvas.onmouseleave = () => { $("hint").hidden = true; };
}
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").onchange = draw;
describe().catch(() => say("The server does not answer.", "wrong"));
