// Asks an address for news, once every so many milliseconds and only while the page is looked at. `url` is a function;
// `use` gets each answer as it is, and is waited for: a browser that draws slowly is given three times as long as it
// took to rest, five seconds at most. Returns the function that ends it. A server that does not answer is asked again:
// Streamlit itself tells a person that the connection is lost.

const LONGEST = 5000;

export default function ({ url, every, use }) {
  let over = false, asking = false, timer = 0;
  const ask = async () => {
    clearTimeout(timer);
    if (over || asking || document.hidden) return; // a hidden page asks again when it is seen
    asking = true;
    const answer = await fetch(url(), { cache: "no-store" }).catch(() => null);
    const text = answer?.status === 200 ? await answer.text().catch(() => null) : "";
    const began = performance.now();
    if (!over && answer && text !== null) await hand({ status: answer.status, text });
    asking = false;
    const took = performance.now() - began;
    if (!over) timer = setTimeout(ask, Math.min(LONGEST, Math.max(every, 3 * took)));
  };
  const hand = async (news) => {
    try {
      await use(news);
    } catch (error) {
      console.error(error); // and the next news may be better
    }
  };
  document.addEventListener("visibilitychange", ask);
  timer = setTimeout(ask, every);
  return () => {
    over = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", ask);
  };
}
