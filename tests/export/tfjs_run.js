// Runs a TensorFlow.js model in node: node tfjs_run.js <node_modules> <model folder> <input.bin> <output folder> <batch> <height> <width>
// The file holds the batches one behind the other, as float32; each output is written to <name>.bin in the same way.
const fs = require("fs");
const path = require("path");
const [modules, folder, input, output, ...shape] = process.argv.slice(2);
const tf = require(path.join(modules, "@tensorflow/tfjs"));
const wasm = require(path.join(modules, "@tensorflow/tfjs-backend-wasm"));
wasm.setWasmPaths(path.join(modules, "@tensorflow/tfjs-backend-wasm/dist/"));

async function main() {
  await tf.setBackend("wasm");
  await tf.ready();
  const { modelTopology, weightsManifest, ...rest } = JSON.parse(fs.readFileSync(path.join(folder, "model.json"), "utf8"));
  const weightSpecs = weightsManifest.flatMap((group) => group.weights);
  const bytes = Buffer.concat(weightsManifest.flatMap((group) => group.paths).map((name) => fs.readFileSync(path.join(folder, name))));
  const weightData = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const model = await tf.loadGraphModel({ load: async () => ({ modelTopology, weightSpecs, weightData, ...rest }) });

  const size = [...shape.map(Number), 3];
  const step = size.reduce((a, b) => a * b);
  const all = fs.readFileSync(input);
  const values = new Float32Array(all.buffer.slice(all.byteOffset, all.byteOffset + all.length));
  const found = { output0: [], output1: [] };
  const shapes = {};
  for (let start = 0; start < values.length; start += step) {
    const images = tf.tensor(values.subarray(start, start + step), size);
    const outputs = model.execute({ images }, Object.keys(found));
    Object.keys(found).forEach((name, i) => {
      shapes[name] = outputs[i].shape;
      found[name].push(Buffer.from(outputs[i].dataSync().slice().buffer));
    });
    tf.dispose([images, outputs]);
  }
  for (const [name, parts] of Object.entries(found)) fs.writeFileSync(path.join(output, `${name}.bin`), Buffer.concat(parts));
  console.log(JSON.stringify({ backend: tf.getBackend(), shapes, inputs: model.inputs.map((i) => i.name), metadata: model.metadata }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
