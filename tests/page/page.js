/*
 * page.js - goes through the status page as people do, in headless Chromium
 *
 *     node page.js '{"url": "http://127.0.0.1:9380/", "token": "...", "directory": "..."}'
 *
 * Prints "ok <name>" or "FAIL <name>: why" for each scenario. What needs the proxy's owner is asked
 * for on a line of its own ("do restart") and done when a line comes back.
 */
"use strict";

const readline = require("readline");
const { chromium } = require("playwright-core");

const { url, token, directory, chromium: executablePath, scale } = JSON.parse(process.argv[2]);
const PATIENCE_MS = 20000 * (scale || 1);
const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function please(what) {
    console.log("do " + what);
    return (await answers.next()).value;
}

function check(condition, text) {
    if (!condition) { throw new Error(text); }
}
const same = (found, wanted, text) => check(String(found) === String(wanted), `${text}: ${found}, not ${wanted}`);

async function until(what, text) {
    const end = Date.now() + PATIENCE_MS;
    let last;
    while (Date.now() < end) {
        try {
            last = await what();
            if (last) { return last; }
        } catch (error) { last = error.message; }
        await new Promise(done => setTimeout(done, 100));
    }
    throw new Error(`not in time: ${text} (${last})`);
}

/* {"hits_total{namespace=\"x\"}": 3} of /metrics. */
async function metrics() {
    const text = await (await fetch(url + "metrics")).text(), found = {};
    for (const line of text.split("\n")) {
        const match = /^nearcached_(\S+) (\S+)$/.exec(line);
        if (match) { found[match[1]] = Number(match[2]); }
    }
    return found;
}
function total(samples, name) {
    let sum = 0;
    for (const [key, value] of Object.entries(samples)) {
        if (key === name || key.startsWith(name + "{")) { sum += value; }
    }
    return sum;
}
const number = text => Number(text.replace(/[^0-9.]/g, ""));

/* ---- pages ---- */

let browser;
const complaints = [], strangers = [];
/* Answers that are errors because a test wants them to be. */
let isTrouble = false;

async function newPage(options = {}) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    const page = await context.newPage();
    page.on("console", message => {
        if (["error", "warning"].includes(message.type()) && !isTrouble) { complaints.push(message.text()); }
    });
    page.on("pageerror", error => complaints.push(error.message));
    page.on("request", request => {
        if (!request.url().startsWith(url) && !request.url().startsWith("data:")) { strangers.push(request.url()); }
    });
    await page.goto(url);
    await page.locator("#spaces tbody tr").first().waitFor({ timeout: PATIENCE_MS });
    return page;
}

/* One page for all that leaves none of its traces; opening one takes a second. */
let shared = null;
async function desk() {
    shared = shared || await newPage();
    await shared.setViewportSize({ width: 1280, height: 900 });
    await shared.emulateMedia({ colorScheme: "light", reducedMotion: "no-preference" });
    return shared;
}

const cell = (page, space, head) => page.locator(`#spaces tr[data-row="${space}"] [data-cell="${head}"]`);
const rowNames = page => page.locator("#spaces tbody tr").evaluateAll(rows => rows.map(row => row.dataset.row));

/* ---- scenarios ---- */

const scenarios = {
    async "the figures are those of /metrics"() {
        const page = await desk(), samples = await metrics();
        const spaces = await rowNames(page);
        check(spaces.length === 4, "rows: " + spaces);
        for (const space of spaces) {
            for (const [head, name] of [["hits", "hits_total"], ["entries", "entries"]]) {
                await until(async () => number(await cell(page, space, head).innerText()) ===
                    samples[`${name}{namespace="${space}"}`], `${head} of ${space}`);
            }
            const misses = Object.entries(samples).filter(([key]) => key.startsWith("misses_total{") &&
                key.includes(`namespace="${space}"`)).reduce((sum, [, value]) => sum + value, 0);
            same(number(await cell(page, space, "misses").innerText()), misses, `misses of ${space}`);
            const hits = samples[`hits_total{namespace="${space}"}`];
            same(await cell(page, space, "hit ratio").innerText(), hits + misses
                ? (100 * hits / (hits + misses)).toFixed(hits && misses ? 1 : 0) + " %" : "–", `hit ratio of ${space}`);
        }
        const since = await page.locator('[data-tile="Requests"] .sub').innerText();
        same(number(since), samples.commands_total, "requests");
        const kept = await page.locator('[data-tile="Reads kept from the backend"] .sub').innerText();
        same(number(kept), total(samples, "hits_total"), "hits in all");
        for (const [key, value] of Object.entries(samples)) {
            const match = /^invalidations_total\{reason="(.*)"\}$/.exec(key);
            if (match && value > 0) {
                same(number(await page.locator(`#inval [data-value="${match[1]}"]`).innerText()), value, key);
            }
        }
        check(await page.locator("#inval [data-value]").count() > 0, "no reason of invalidations is shown");
        same(await page.locator("#ready").innerText(), "ready", "readiness");
        same(await page.locator("#nodes tbody tr").count(), 1, "nodes");
    },

    async "charts are drawn from the history, and told in words"() {
        const page = await desk();
        await until(async () => await page.locator(".plot path").count() >= 6, "lines in the charts");
        const text = await page.locator("#chart-requests-by-outcome-text").textContent();
        check(/^Requests per second, the last .*hits .*misses .*relayed/.test(text), text);
        await page.locator("#charts svg").first().focus();
        await page.keyboard.press("Home");
        check(/at \d\d:/.test(await page.locator("#charts .legend").first().innerText()), "the arrows do not move");
        await page.locator("input[value=relayed]").check();
        await page.locator("#charts svg").nth(2).focus();
        await page.keyboard.press("Home");
        await until(async () => /median\s+\d/.test(await page.locator("#charts .legend").nth(2).innerText()), "latency of what is relayed");
        await page.locator("input[name=range][value='5']").check();
    },

    async "tables are sorted by their heads"() {
        const page = await desk();
        const figures = async () => (await page.locator('#spaces [data-cell="hits"]').allInnerTexts()).map(number);
        const head = page.locator("#spaces thead th").filter({ hasText: /^hits$/ });
        await head.getByRole("button").click();
        same(await head.getAttribute("aria-sort"), "descending", "aria-sort");
        same(await figures(), (await figures()).sort((a, b) => b - a), "descending");
        await head.getByRole("button").click();
        same(await head.getAttribute("aria-sort"), "ascending", "aria-sort");
        same(await figures(), (await figures()).sort((a, b) => a - b), "ascending");
    },

    async "an action says what it does, wants the token, and does it"() {
        const page = await newPage(), held = async () => (await metrics())['entries{namespace="session"}'];
        const n = await held();
        check(n > 0, "nothing to clear");
        await page.getByRole("button", { name: "Clear namespace session" }).click();
        const dialog = page.getByRole("dialog");
        check((await dialog.innerText()).includes(`All ${n} entries of namespace session (session:*) are dropped from the memory of this proxy`),
            await dialog.innerText());
        await page.getByRole("button", { name: "Cancel" }).click();
        same(await held(), n, "entries after Cancel");

        await page.getByRole("button", { name: "Clear namespace session" }).click();
        await page.locator("#token").fill("wrong");
        isTrouble = true;
        await page.getByRole("button", { name: `Drop ${n} entries` }).click();
        await until(async () => (await page.getByRole("alert").innerText()).includes("refused. Nothing was done"), "the refusal");
        isTrouble = false;
        same(await held(), n, "entries after a wrong token");

        await page.locator("#token").fill(token);
        await page.getByRole("button", { name: `Drop ${n} entries` }).click();
        await until(async () => (await page.locator("#banner").innerText()).includes(`Done: ${n} entries dropped`), "the success");
        same(await held(), 0, "entries after the action");
        await until(async () => await cell(page, "session", "entries").innerText() === "0", "the row");
        check(await page.evaluate(() => localStorage.length + sessionStorage.length === 0 && document.cookie === ""), "something is stored");

        /* The token is known now: it is not asked for again. */
        await page.getByRole("button", { name: "Invalidate…" }).click();
        check(!await page.locator("#token-field").isVisible(), "the token is asked for again");
        await page.locator("#inv-what").selectOption("prefix");
        await page.locator("#inv-name").fill("frame:");
        check((await dialog.innerText()).includes('Every key that begins with "frame:" in database 0 is dropped'), await dialog.innerText());
        await page.getByRole("button", { name: "Invalidate frame:" }).click();
        await until(async () => (await metrics())['invalidation_orders_total{kind="pattern"}'] === 1, "the order");
        await page.context().close();
    },

    async "everything can be done with the keyboard"() {
        const page = await newPage();
        const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
        await page.keyboard.press("Tab");
        same(await focused(), "Skip to the figures", "the first stop");
        const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
        check(outline !== "none", "the focus is not seen");
        for (let i = 0; i < 20 && await focused() !== "act-mode"; i++) { await page.keyboard.press("Tab"); }
        await page.keyboard.press("Enter");
        same(await focused(), "mode-pick", "the focus in the dialog");
        await page.keyboard.press("Escape");
        same(await focused(), "act-mode", "the focus after Escape");
        await page.keyboard.press("Enter");
        await page.keyboard.press("Home");
        await page.keyboard.press("ArrowDown");
        await until(async () => (await page.locator("#mode-text").innerText()).includes("nothing is answered from memory"), "the sentence");
        await page.keyboard.press("Tab");
        await page.keyboard.type(token);
        await page.keyboard.press("Enter");
        await until(async () => (await metrics())['mode{namespace="default"}'] === 1, "the mode");
        await until(async () => await page.locator("#mode").innerText() === "mode bypass", "the mode on the page");
        await page.locator("#act-mode").focus();
        await page.keyboard.press("Enter");
        await page.keyboard.press("Home");
        for (let i = 0; i < 5 && await focused() !== "dialog-yes"; i++) { await page.keyboard.press("Tab"); }
        await page.keyboard.press("Enter");
        await until(async () => (await metrics())['mode{namespace="default"}'] === 0, "the mode to be on");
        await until(async () => await page.locator("#mode").isHidden(), "the mode to be gone from the page");
        await page.context().close();
    },

    async "it says what is in force, and no secret"() {
        const page = await newPage();
        await page.getByText("Configuration in force").click();
        await until(async () => (await page.locator("#config-note").innerText()).includes("have the token"), "the note");
        await page.getByRole("button", { name: "Token…" }).click();
        await page.locator("#token").fill(token);
        await page.getByRole("button", { name: "Use it" }).click();
        await until(async () => await page.locator("#options div").count() > 50, "the options");
        check(!(await page.locator("#options").innerText()).includes(token), "the token is shown");
        await page.locator("#filter").fill("namespace.session.max-ttl");
        await until(async () => await page.locator("#options div").count() === 1, "the filter");
        check((await page.locator("#options").innerText()).includes("30m"), "max-ttl of session");
        await page.context().close();
    },

    async "it fits on a phone, in the light and in the dark"() {
        for (const colorScheme of ["light", "dark"]) {
            const page = await desk();
            await page.emulateMedia({ colorScheme });
            for (const width of [320, 390, 768, 1024, 1280, 1920]) {
                await page.setViewportSize({ width, height: 800 });
                await until(async () => await page.locator(".plot path").count() >= 6, "charts");
                const found = await page.evaluate(() => ({ wide: document.documentElement.scrollWidth, text: getComputedStyle(document.body).color,
                    ground: getComputedStyle(document.documentElement).backgroundColor }));
                check(found.wide <= width, `${width}: the page is ${found.wide} wide`);
                const light = color => color.match(/\d+/g).slice(0, 3).reduce((sum, n) => sum + Number(n), 0) / 3;
                check(light(found.ground) > 128 === (colorScheme === "light") && light(found.text) > 128 !== (colorScheme === "light"),
                    `${colorScheme}: ${found.text} on ${found.ground}`);
                if (width === 320) { await page.screenshot({ path: `${directory}/phone-${colorScheme}.png`, fullPage: true }); }
            }
        }
    },

    async "colors are far enough apart to be read"() {
        for (const colorScheme of ["light", "dark"]) {
            const page = await desk();
            await page.emulateMedia({ colorScheme });
            const ratios = await page.evaluate(() => {
                const style = getComputedStyle(document.documentElement), canvas = document.createElement("canvas").getContext("2d",
                    { willReadFrequently: true });
                const shine = name => {
                    canvas.fillStyle = style.getPropertyValue(name);
                    canvas.fillRect(0, 0, 1, 1);
                    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(n => n / 255).map(n =>
                        n <= .03928 ? n / 12.92 : ((n + .055) / 1.055) ** 2.4);
                    return .2126 * r + .7152 * g + .0722 * b;
                };
                const ratio = (a, b) => (Math.max(shine(a), shine(b)) + .05) / (Math.min(shine(a), shine(b)) + .05);
                const text = [["--text", "--bg"], ["--text", "--card"], ["--muted", "--card"], ["--muted", "--bg"], ["--muted", "--soft"],
                    ["--good", "--good-bg"], ["--bad", "--bad-bg"], ["--warn", "--warn-bg"], ["--good", "--card"], ["--bad", "--card"],
                    ["--accent", "--card"], ["--accent", "--bg"]].map(([a, b]) => [a, b, ratio(a, b), 4.5]);
                const shapes = ["--hit", "--miss", "--relayed", "--stale", "--bypass"].map(a => [a, "--card", ratio(a, "--card"), 3]);
                return [...text, ...shapes].filter(([, , found, wanted]) => found < wanted);
            });
            same(ratios, [], colorScheme);
        }
    },

    async "it can be heard: landmarks, names, heads"() {
        const page = await desk();
        const wrong = await page.evaluate(() => {
            const named = element => element.getAttribute("aria-label") || (element.getAttribute("aria-labelledby") || "").split(" ")
                .map(id => document.getElementById(id)).map(found => found && found.textContent).join("") || element.textContent;
            const missing = [];
            for (const [what, n] of [["main", 1], ["header", 1], ["h1", 1], ["[role=status]", 1]]) {
                if (document.querySelectorAll(what).length !== n) { missing.push(what); }
            }
            document.querySelectorAll("section, table, button, svg[role=img], dialog").forEach(element => {
                if (!named(element).trim() && !element.closest("dialog")) { missing.push(element.outerHTML.slice(0, 80)); }
            });
            document.querySelectorAll("main input, main select").forEach(element => {
                if (!element.labels.length) { missing.push(element.outerHTML); }
            });
            document.querySelectorAll("thead th").forEach(element => { if (element.scope !== "col") { missing.push("scope"); } });
            document.querySelectorAll("tbody th").forEach(element => { if (element.scope !== "row") { missing.push("scope"); } });
            const ids = [...document.querySelectorAll("[id]")].map(element => element.id);
            return [...missing, ...ids.filter((id, i) => ids.indexOf(id) !== i)];
        });
        same(wrong, [], "missing");
        await page.setViewportSize({ width: 320, height: 800 });
        same(await page.getByRole("table", { name: "Namespaces" }).getByRole("row").count(), 5, "rows on a phone");
    },

    async "who wants less motion gets none"() {
        for (const [reducedMotion, wanted] of [["reduce", "0s"], ["no-preference", "0.3s"]]) {
            const page = await desk();
            await page.emulateMedia({ reducedMotion });
            same(await page.evaluate(() => getComputedStyle(document.querySelector("main")).transitionDuration), wanted, reducedMotion);
        }
    },

    async "a page that nobody sees asks nothing"() {
        const page = await desk();
        const hide = is => page.evaluate(isHidden => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
            document.dispatchEvent(new Event("visibilitychange"));
        }, is);
        let n = 0;
        await hide(true);
        await page.waitForTimeout(500);
        page.on("request", () => n++);
        await page.waitForTimeout(4000);
        same(n, 0, "requests while hidden");
        await hide(false);
        await until(() => n > 0, "requests when seen again");
    },

    async "it survives a restart of the proxy, and says since when it is stale"() {
        const page = await desk();
        isTrouble = true;
        await please("stop");
        await until(async () => /stale since \d\d:\d\d:\d\d/.test(await page.locator("#banner").innerText()), "stale since");
        check(await page.locator("main.old").count() === 1, "the figures look new");
        await please("start");
        await until(async () => (await page.locator("#banner").innerText()).includes("was restarted"), "the restart");
        check(await page.locator("main.old").count() === 0, "the figures look old");
        isTrouble = false;
        await until(async () => await cell(page, "session", "hits").innerText() === "0", "the figures of the new process");
    },

    async "nothing can be done where it is switched off"() {
        await please("off");
        const page = await newPage();
        await until(async () => await page.locator("#facts").innerText() !== "", "the status");
        for (const id of ["act-clear", "act-invalidate", "act-mode", "act-token"]) {
            check(await page.locator("#" + id).isHidden(), id + " is shown");
        }
        same(await page.getByRole("button", { name: "Clear namespace" }).count(), 0, "buttons of rows");
        await page.context().close();
    },

    async "no complaint in the console, no request to elsewhere"() {
        same(complaints, [], "console");
        same(strangers, [], "requests");
    },
};

async function main() {
    const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
    browser = await chromium.launch({ executablePath, args: [...args, "--disable-gpu"] });
    for (const [name, run] of Object.entries(scenarios)) {
        const began = Date.now();
        try {
            await run();
            console.log(`ok ${name} (${Date.now() - began} ms)`);
        } catch (error) {
            const last = browser.contexts().flatMap(context => context.pages()).pop();
            const shown = last ? await last.evaluate(() => ["dialog-error", "banner"].map(id => document.getElementById(id).textContent)
                .join(" ").trim()).catch(() => "") : "";
            console.log(`FAIL ${name}: ${String(error.message).split("\n").slice(0, 3).join(" ")}${shown ? ` [${shown}]` : ""}`);
            for (const context of browser.contexts()) { await context.close(); }
            shared = null;
            isTrouble = false;
        }
    }
    await browser.close();
    process.exit(0);
}
main().catch(error => {
    console.log("FAIL to begin: " + error.message);
    process.exit(1);
});
