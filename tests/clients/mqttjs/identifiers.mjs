// Two overlapping subscriptions with identifiers: a message says which of them it matched.

import { Device, run, say } from "./device.mjs";

await run(async (asked) => {
    const device = new Device(asked);
    await device.connect();
    await device.subscribe(`${asked.topic}/+`, asked.qos, { subscriptionIdentifier: 7 });
    await device.subscribe(`${asked.topic}/both`, asked.qos, { subscriptionIdentifier: 268435455 });
    say("subscribed", { topic: asked.topic });
    while ((await device.next()).topic !== `${asked.topic}/end`);
    await device.disconnect();
});
