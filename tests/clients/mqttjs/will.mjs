// Leaves wills with the node and waits: to be killed, or for the word to say goodbye.

import { Device, awaitGo, run, say } from "./device.mjs";

const WILL = Buffer.from([...Buffer.from("gone "), 0, 0xff]);

async function leave(asked) {
    const device = new Device(asked, { will: { topic: `${asked.topic}/will`, payload: WILL, qos: asked.qos, retain: false } });
    await device.connect();
    return device;
}

await run(leave, async (devices) => {
    say("waiting");
    await awaitGo();
    for (const device of devices) await device.disconnect();
});
