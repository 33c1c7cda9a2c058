// Carry choices between the server and what it cannot see: managers that keep them in the page's
// storage, and mixpanel-browser. Only documented signals of a visitor's own choice are carried.
(() => {
  "use strict";
  if (window.mpAsgiBridge) return;
  window.mpAsgiBridge = true;
  const script = document.currentScript;
  const endpoint = new URL("consent", script.src);
  const service = script.dataset.service || "Mixpanel"; // its name in Usercentrics
  const OPT_OUT = "__mp_opt_in_out_"; // mixpanel-browser's key, followed by the project token
  const NOT_CHOSEN = ["sec-gpc", "dnt", "policy-denied", "opt-out-default", "cookieless"];

  let known = null; // the state, as a promise, asked for once somebody says something
  let queue = Promise.resolve();

  // --- to the server ---------------------------------------------------------------------------

  function report(manager, isGranted) {
    queue = queue.then(() => carry(manager, isGranted)).catch(() => { known = null; });
  }

  async function carry(manager, isGranted) {
    known = known || call({});
    const before = await known;
    const analytics = isGranted ? "granted" : "denied";
    if (before.state === analytics && !NOT_CHOSEN.includes(before.reason)) return;
    if (isGranted && before.gpc) return; // only a banner that says so overrides the browser
    const state = await call({
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ analytics, source: `cmp:${manager}` }),
    });
    document.dispatchEvent(new CustomEvent("mp-asgi:consent", { detail: { ...state, manager } }));
  }

  async function call(options) {
    const response = await fetch(endpoint, { cache: "no-store", ...options });
    if (!response.ok) throw new Error(`consent: ${response.status}`);
    return response.json();
  }

  // Usercentrics v3: `UC_CONSENT` carries every service with its consent and how it came about.
  window.addEventListener("UC_CONSENT", (event) => {
    const services = Object.values((event.detail || {}).services || {});
    const found = services.find((item) => item.name === service);
    if (found && found.consent && found.consent.type === "EXPLICIT") {
      report("usercentrics", found.consent.given === true);
    }
  });

  // Usercentrics v2: a button was pressed; what it did is stored after this event.
  window.addEventListener("UC_UI_CMP_EVENT", (event) => {
    const isChoice = ["ACCEPT_ALL", "DENY_ALL", "SAVE"].includes((event.detail || {}).type);
    if (!isChoice || window.__ucCmp) return;
    setTimeout(() => {
      const services = window.UC_UI.getServicesBaseInfo();
      const found = services.find((item) => item.name === service);
      if (found) report("usercentrics", found.consent.status === true);
    });
  });

  function hearManagers() {
    hearTermly(window.Termly);
    hearOsano(window.Osano && window.Osano.cm);
    hearSourcepoint();
    hearMixpanel();
  }

  function hearTermly(termly) {
    if (!termly || !termly.on) return;
    termly.on("consent", () => {
      const isGranted = (termly.getConsentState() || {}).analytics;
      if (typeof isGranted === "boolean") report("termly", isGranted);
    });
  }

  function hearOsano(manager) {
    if (!manager || !manager.addEventListener) return;
    manager.addEventListener("osano-cm-consent-saved", (consent) => {
      const said = { ACCEPT: true, DENY: false }[consent.ANALYTICS];
      if (said !== undefined) report("osano", said);
    });
  }

  // Sourcepoint speaks the IAB's TCF: purpose 1 is storage, purpose 8 measurement of content.
  function hearSourcepoint() {
    if (!window._sp_ || !window.__tcfapi) return;
    window.__tcfapi("addEventListener", 2, (tc, isGood) => {
      if (!isGood || tc.eventStatus !== "useractioncomplete" || !tc.gdprApplies) return;
      const consents = tc.purpose.consents;
      const isStored = consents[1] === true || tc.purposeOneTreatment === true;
      report("sourcepoint", isStored && consents[8] === true);
    });
  }

  // --- mixpanel-browser ------------------------------------------------------------------------

  function hearMixpanel() {
    const mixpanel = window.mixpanel;
    const isLoaded = mixpanel && typeof mixpanel.get_config === "function";
    // With this setting the library itself writes the opt-out, before anybody chose.
    if (isLoaded && mixpanel.get_config("opt_out_tracking_by_default")) return;
    if (optOuts().length) report("mixpanel-browser", false);
  }

  function optOuts() {
    try {
      return Object.keys(localStorage).filter(
        (key) => key.startsWith(OPT_OUT) && localStorage.getItem(key) === "0",
      );
    } catch {
      return []; // the browser forbids its storage
    }
  }

  document.addEventListener("mp-asgi:consent", (event) => {
    const { state, manager } = event.detail;
    known = Promise.resolve(event.detail);
    if (manager === "mixpanel-browser") return; // it said so itself
    if (state === "granted") optIn(window.mixpanel);
    if (state === "denied") optOut(window.mixpanel);
  });

  function optIn(mixpanel) {
    if (mixpanel && mixpanel.opt_in_tracking) {
      mixpanel.opt_in_tracking({ track() {} }); // opting in sends no event
    } else {
      // Without the library here, its older refusal would be carried as news on the next page.
      optOuts().forEach((key) => localStorage.removeItem(key));
    }
  }

  function optOut(mixpanel) {
    // A refusal ends the tracking; it does not delete the person's profile.
    if (mixpanel && mixpanel.opt_out_tracking) mixpanel.opt_out_tracking({ delete_user: false });
  }

  if (document.readyState === "complete") hearManagers();
  else window.addEventListener("load", hearManagers);
})();
