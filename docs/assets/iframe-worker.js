/* A browser starts no worker from a page that was opened from a folder. There, the search's script
   runs in a hidden frame of the page instead, behind the part of a worker's interface that it uses. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.onmessage = null;
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      const inner = (this.inner = frame.contentWindow);
      this.ready = new Promise((begin) => {
        // What the script posts goes to this object, as from a worker.
        inner.postMessage = (data) => {
          const event = new MessageEvent("message", { data });
          this.dispatchEvent(event);
          if (this.onmessage) this.onmessage(event);
        };
        inner.importScripts = (...urls) =>
          urls.reduce((before, url) => before.then(() => load(inner, url)), Promise.resolve());
        load(inner, new URL(address, location.href).href).then(begin);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.inner.frameElement.remove();
    }
  };

  const load = (frame, url) =>
    new Promise((done, failed) => {
      const script = frame.document.createElement("script");
      script.src = url;
      script.onload = done;
      script.onerror = failed;
      frame.document.body.append(script);
    });
}
