// Vercel's AI SDK, which downloads the images itself: text to image, and an edit. It prints their types and sizes.

import { createBlackForestLabs } from "@ai-sdk/black-forest-labs";
import { generateImage } from "ai";

const [input, baseURL] = process.argv.slice(2);
const provider = createBlackForestLabs({ apiKey: "emulator-key", baseURL });
const providerOptions = { blackForestLabs: { pollIntervalMillis: 100 } };
for (const prompt of ["a red kite", { text: "a red kite", images: [Buffer.from(input, "base64")] }]) {
  const { image } = await generateImage({ model: provider.image("flux-2-pro"), prompt, seed: 7, providerOptions });
  console.log("bytes", image.mediaType, image.uint8Array.length);
}
