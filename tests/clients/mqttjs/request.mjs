// Request and response with correlation data and user properties. Stage "respond" only answers, one request per version and QoS.

import { CORRELATION, Device, USER, check, pairs, run, say } from "./device.mjs";

const QUESTION = "wie geht's?";

async function respond(responder, qos) {
    const { payload, properties } = await responder.next();
    const user = {};
    for (const [name, value] of properties.user ?? []) (user[name] ??= []).push(value);
    await responder.publish(properties.response_topic, Buffer.concat([Buffer.from("re: "), payload]), qos, {
        properties: {
            correlationData: Buffer.from(properties.correlation, "hex"),
            userProperties: { ...user, answered: "yes" },
        },
    });
}

await run(async (asked) => {
    const { qos } = asked;
    const [question, answers] = [`${asked.topic}/question`, `${asked.topic}/answers`];
    const responder = new Device(asked, { suffix: "-responder" });
    await responder.connect();
    await responder.subscribe(question, qos);
    say("subscribed", { topic: asked.topic });
    if (asked.stage === "respond") {
        await respond(responder, qos);
        await responder.disconnect();
        return;
    }
    const requester = new Device(asked, { suffix: "-requester" });
    await requester.connect();
    await requester.subscribe(answers, qos);
    await requester.publish(question, QUESTION, qos, {
        properties: {
            responseTopic: answers,
            correlationData: CORRELATION,
            contentType: "text/plain",
            payloadFormatIndicator: true,
            messageExpiryInterval: 300,
            userProperties: USER,
        },
    });
    await respond(responder, qos);
    const answer = await requester.next();
    check(answer.payload.toString() === `re: ${QUESTION}`, "the answer's payload");
    check(answer.properties.correlation === CORRELATION.toString("hex"), "the answer's correlation data");
    const user = [...Object.entries(USER).flatMap(pairs), ["answered", "yes"]];
    check(JSON.stringify(answer.properties.user) === JSON.stringify(user), "the answer's user properties");
    await requester.disconnect();
    await responder.disconnect();
});
