"""The page as people meet it, in a real Chromium, with the real service behind it."""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from service import predictor, zone_map
from service.app import app
from service.models import Models
from service.server import PAGE
from trip_duration.files import write_bytes, write_parquet
from trip_duration.params import Serve
from trip_duration.registry import Served
from trip_duration.sources.simulated import city

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs Playwright: `make setup EXTRAS=webtest`"
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
FLAGS += ["--disable-component-update", "--disable-sync"]
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
AT = "2024-04-05T08:30"
FROM, TO = 74, 41
SECONDS = 10.0  # that anything on the page may take


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, Any]:
    """The simulated city's map."""
    folder = tmp_path_factory.mktemp("repository")
    write_bytes((root / "params.yaml").read_bytes(), folder / "params.yaml")
    write_parquet(city(42).zones(), folder / "data" / "zones.parquet")
    return zone_map.zones(folder, None)


class Service:
    """The service, with a map and a model that a test may change."""

    def __init__(self, settings: Serve, plane: dict[str, Any], first: Served) -> None:
        import uvicorn

        self.models = Models([])  # follows nobody
        self.models.current = predictor.load(first)
        self.plane = plane
        made = app(settings, self.models, lambda _: self.plane, PAGE)
        config = uvicorn.Config(made, host="127.0.0.1", port=0, log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        host, port = self._server.servers[0].sockets[0].getsockname()
        return f"http://{host}:{port}"

    def wait(self) -> None:
        pause = threading.Event()
        for _ in range(1000):
            if self._server.started or not self._thread.is_alive():
                break
            pause.wait(0.01)
        assert self._server.started

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def running(settings: Serve, plane: dict[str, Any], first: Served) -> Iterator[Service]:
    made = Service(settings, plane, first)
    made.wait()
    yield made
    made.stop()


@pytest.fixture
def service(running: Service, first: Served) -> Iterator[Service]:
    """The service, with the first model again after the test."""
    before = running.models.current
    yield running
    running.models.current = before


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a browser: one of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield made
        made.close()


class Page:
    """A page that was opened, and what it asked for and complained of."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        settings = {"viewport": WIDE, "reduced_motion": "reduce", "locale": "en-US"}
        self.context = browser.new_context(**settings | context)
        self.context.set_default_timeout(1000 * SECONDS)
        self.view = self.context.new_page()
        self.address = address
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.allowed = 0  # complaints that the test expects
        self.view.on("request", lambda request: self.asked.append(request.url))
        self.view.on("console", self._complain)
        self.view.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _complain(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, hash: str = "", settled: str = ".minutes, .prompt") -> "Page":
        self.view.goto(f"{self.address}/{hash and '#'}{hash}")
        self.view.wait_for_selector(settled)
        return self

    def says(self, selector: str) -> str:
        return self.view.inner_text(selector)

    def wait(self, expression: str, argument: Any = None) -> None:
        self.view.wait_for_function(expression, arg=argument)

    def answers(self, minutes: float) -> None:
        """Wait until the page says these minutes."""
        self.wait(
            "said => document.querySelector('.minutes')?.innerText === said",
            f"{round(minutes)} min",
        )

    @property
    def hash(self) -> dict[str, str]:
        return dict(part.split("=") for part in urlsplit(self.view.url).fragment.split("&"))

    def check(self) -> None:
        hosts = {urlsplit(url).netloc for url in self.asked}
        assert hosts == {urlsplit(self.address).netloc}
        assert self.complaints[: self.allowed] == self.complaints


Open = Callable[..., Page]


@pytest.fixture
def page(
    browser: Any, service: Service, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Open]:
    """Makes pages; each asks no other host and complains of nothing, and is photographed."""
    made: list[Page] = []

    def make(**context: Any) -> Page:
        made.append(Page(browser, service.address, **context))
        return made[-1]

    yield make
    folder = os.environ.get("SCREENSHOTS") or tmp_path
    for number, one in enumerate(made):
        name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")
        one.view.screenshot(path=Path(folder) / f"{name}{f'-{number}' if number else ''}.png")
        one.context.close()
    for one in made:
        one.check()


def trip(at: str = AT, pickup: int = FROM, dropoff: int = TO, **more: float) -> dict[str, Any]:
    return {"pickup": f"{at}:00", "pickup_zone": pickup, "dropoff_zone": dropoff, **more}


def asked(service: Service, trips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the service answers without a page."""
    import httpx

    answer = httpx.post(f"{service.address}/predict", json=trips, trust_env=False)
    assert answer.status_code == 200
    return answer.json()


def one(service: Service, **changed: Any) -> float:
    return asked(service, [trip(**changed)])[0]["minutes"]


def name_of(service: Service, zone: int) -> str:
    return next(one["name"] for one in service.plane["zones"] if one["zone"] == zone)


# -- to an answer --------------------------------------------------------------------------------


def test_by_keyboard_alone(page: Open, service: Service) -> None:
    opened = page().open()
    keyboard = opened.view.keyboard
    for _ in range(20):
        keyboard.press("Tab")
        if opened.view.evaluate("document.activeElement.id") == "from":
            break
    keyboard.type(name_of(service, FROM)[:-1].lower())
    keyboard.press("Enter")
    keyboard.press("Tab")
    keyboard.type(str(TO))
    assert opened.view.get_attribute("#to", "aria-expanded") == "true"
    active = opened.view.get_attribute("#to", "aria-activedescendant")
    assert opened.view.get_attribute(f"#{active}", "role") == "option"
    keyboard.press("Tab")  # takes what is marked, and goes on
    opened.view.wait_for_selector(".minutes")
    found = opened.hash
    assert (found["from"], found["to"]) == (str(FROM), str(TO))
    opened.answers(one(service, at=found["at"]))


def test_on_the_map(page: Open, service: Service) -> None:
    opened = page().open()
    opened.view.click(f"[data-zone='{FROM}']")
    opened.wait("() => document.querySelector('#answer').innerText === 'Now choose the drop-off.'")
    opened.view.hover(f"[data-zone='{TO}']")
    assert opened.says("#map-says").startswith(name_of(service, TO))
    opened.view.click(f"[data-zone='{TO}']")
    opened.view.wait_for_selector(".minutes")
    opened.answers(one(service, at=opened.hash["at"]))
    assert opened.view.input_value("#from") == name_of(service, FROM)
    assert opened.view.input_value("#to") == name_of(service, TO)


def test_on_the_map_by_keys(page: Open, service: Service) -> None:
    opened = page().open(f"from={FROM}&to={TO}&at={AT}")
    opened.view.focus("#map")
    for key in ("+", "ArrowRight", "ArrowRight", "Enter"):
        opened.view.keyboard.press(key)
    pointed = opened.says("#map-says")
    opened.wait("before => !location.hash.includes(before)", f"from={FROM}&")
    chosen = int(opened.hash["from"])
    assert pointed.startswith(name_of(service, chosen))
    opened.answers(one(service, pickup=chosen))


def test_by_touch_on_a_phone(page: Open, service: Service) -> None:
    opened = page(viewport=PHONE, has_touch=True, is_mobile=True).open()
    opened.view.tap("#from")
    opened.view.keyboard.type(name_of(service, FROM))
    opened.view.tap("#from-list [role=option]")
    opened.view.tap("#nearer")
    opened.view.tap("#whole")
    opened.view.tap(f"[data-zone='{TO}']")
    opened.view.wait_for_selector(".minutes")
    opened.answers(one(service, at=opened.hash["at"]))


def seen(opened: Page) -> tuple[float, float, float]:
    """The left and upper edge of what is seen of the map, and its width."""
    left, top, width, _ = map(float, opened.view.get_attribute("#map", "viewBox").split())
    return left, top, width


def test_the_map_is_zoomed_and_moved_by_a_mouse(page: Open) -> None:
    opened = page().open()
    whole = seen(opened)
    box = opened.view.locator("#map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    opened.view.mouse.move(x, y)
    opened.view.mouse.wheel(0, -600)
    opened.wait("width => document.querySelector('#map').viewBox.baseVal.width < width", whole[2])
    near = seen(opened)
    middle = near[0] + near[2] / 2, whole[0] + whole[2] / 2
    assert middle[0] == pytest.approx(middle[1], abs=1)  # what is below the pointer stays
    opened.view.mouse.down()
    opened.view.mouse.move(x - 100, y - 50, steps=4)
    opened.view.mouse.up()
    moved = seen(opened)
    pixel = near[2] / box["width"]
    assert moved == pytest.approx((near[0] + 100 * pixel, near[1] + 50 * pixel, near[2]), abs=0.1)
    assert "from" not in opened.hash  # a drag is no click
    opened.view.focus("#map")
    opened.view.keyboard.press("0")
    assert seen(opened) == pytest.approx(whole, abs=0.1)
    opened.view.keyboard.press("-")
    assert seen(opened) == pytest.approx(whole, abs=0.1)
    for _ in range(20):
        opened.view.click("#nearer")
    assert seen(opened)[2] == pytest.approx(whole[2] / 24, rel=0.01)


def test_the_map_is_pinched_by_two_fingers(page: Open) -> None:
    opened = page(viewport=PHONE, has_touch=True, is_mobile=True).open()
    whole = seen(opened)
    box = opened.view.locator("#map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers = opened.context.new_cdp_session(opened.view)

    def touch(kind: str, apart: float | None = None) -> None:
        points = [] if apart is None else [{"x": x - apart, "y": y}, {"x": x + apart, "y": y}]
        named = [point | {"id": number} for number, point in enumerate(points)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": named})

    touch("touchStart", 30)
    for apart in (40, 50, 60):
        touch("touchMove", apart)
    touch("touchEnd")
    opened.wait("width => document.querySelector('#map').viewBox.baseVal.width < width", whole[2])
    left, _, width = seen(opened)
    assert width == pytest.approx(whole[2] / 2, rel=0.1)
    assert left + width / 2 == pytest.approx(whole[0] + whole[2] / 2, abs=0.03 * whole[2])
    assert "from" not in opened.hash


def test_the_fields_are_enough_where_there_is_no_map(
    page: Open, service: Service, browser: Any, settings: Serve, first: Served
) -> None:
    bare = [zone | {"path": None, "x": None, "y": None} for zone in service.plane["zones"]]
    other = Service(settings, service.plane | {"zones": bare}, first)
    other.wait()
    opened = Page(browser, other.address)
    try:
        opened.open()
        assert not opened.view.is_visible("#map")
        opened.view.fill("#from", str(FROM))
        opened.view.keyboard.press("Enter")
        opened.view.fill("#to", str(TO))
        opened.view.keyboard.press("Enter")
        opened.answers(one(service, at=opened.hash["at"]))
        opened.check()
    finally:
        opened.context.close()
        other.stop()


def test_a_day_is_asked_for_in_as_many_requests_as_it_takes(
    service: Service, browser: Any, settings: Serve, first: Served
) -> None:
    other = Service(settings.model_copy(update={"max_trips": 40}), service.plane, first)
    other.wait()
    opened = Page(browser, other.address)
    try:
        opened.open(f"from={FROM}&to={TO}&at={AT}")
        opened.answers(one(service))
        assert opened.says("#day-summary").startswith("Quickest: ")
        assert sum(url.endswith("/predict") for url in opened.asked) == 3  # of 97 trips
        opened.check()
    finally:
        opened.context.close()
        other.stop()


def test_zones_that_are_on_no_map_may_be_chosen(page: Open, service: Service) -> None:
    opened = page().open(f"from={FROM}&to={TO}&at={AT}")
    opened.view.fill("#to", "outside")
    opened.view.keyboard.press("Enter")
    opened.answers(one(service, dropoff=265))


def test_what_is_found_by_a_word_of_any_kind(page: Open, service: Service) -> None:
    opened = page().open()
    said = {zone["zone"]: zone for zone in service.plane["zones"]}

    def found(text: str) -> list[str]:
        opened.view.fill("#from", text)
        return opened.view.locator("#from-list [role=option] span").all_inner_texts()

    assert found("74")[0] == said[74]["name"]
    inside = [zone["name"] for zone in said.values() if zone["borough"] == "Farside"]
    assert sorted(found("farside")) == sorted(inside)
    airports = found("  AIRPORT ")
    assert sorted(airports) == ["Kestrel Airport", "Meridian Airport"]
    assert found("no such place") == []
    opened.view.keyboard.press("Escape")
    assert opened.view.input_value("#from") == ""


# -- the answer ----------------------------------------------------------------------------------


def test_the_answer_and_the_day_are_the_service_s(page: Open, service: Service) -> None:
    opened = page().open(f"from={FROM}&to={TO}&at={AT}&miles=2.5")
    times = [f"{hour:02}:{minute:02}" for hour in range(24) for minute in (0, 15, 30, 45)]
    trips = [trip(f"2024-04-05T{time}", trip_distance=2.5) for time in times]
    day = asked(service, trips)
    said = day[times.index("08:30")]
    opened.answers(said["minutes"])
    between = f"{round(said['lower'])} and {round(said['upper'])}"
    assert opened.says(".likely") == f"most likely between {between} min"
    assert opened.says("#held") == "The band holds 90 % of trips."
    assert opened.says("#model").startswith("Model 1, learned from green taxi trips of 2024-01")

    opened.view.click("summary")
    rows = [row.inner_text().split("\t") for row in opened.view.locator("#hours tr").all()]
    hours = [answer for answer, time in zip(day, times, strict=True) if time.endswith(":00")]
    assert [row[1:] for row in rows] == [
        [f"{round(a['minutes'])}", f"{round(a['lower'])} and {round(a['upper'])}"] for a in hours
    ]
    assert [rows[0][0], rows[12][0], rows[23][0]] == ["12:00 am", "12:00 pm", "11:00 pm"]

    # The line runs through all times; heights are minutes, but for one scale.
    line = opened.view.get_attribute("#curve .line", "d")
    points = np.array(re.findall(r"[\d.]+", line), float).reshape(-1, 2)
    assert len(points) == len(day) + 1
    minutes = np.array([answer["minutes"] for answer in day])
    scale, offset = np.polyfit(minutes, points[:-1, 1], 1)
    assert scale < 0
    np.testing.assert_allclose(points[:-1, 1], scale * minutes + offset, atol=0.1)
    band = opened.view.get_attribute("#curve .band", "d")
    heights = np.array(re.findall(r"[\d.]+", band), float).reshape(-1, 2)[:, 1]
    ends = [answer["lower"] for answer in day], [answer["upper"] for answer in day]
    np.testing.assert_allclose(heights[:96], scale * np.array(ends[0]) + offset, atol=0.1)
    np.testing.assert_allclose(heights[:96:-1][:96], scale * np.array(ends[1]) + offset, atol=0.1)
    quickest, slowest = min(day, key=lambda a: a["minutes"]), max(day, key=lambda a: a["minutes"])
    assert re.fullmatch(
        rf"Quickest: {round(quickest['minutes'])} min at .+\. "
        rf"Slowest: {round(slowest['minutes'])} min at .+\.",
        opened.says("#day-summary"),
    )


def test_the_slider_over_the_curve_is_the_time(page: Open, service: Service) -> None:
    opened = page().open(f"from={FROM}&to={TO}&at={AT}")
    opened.view.focus("#hour")
    for _ in range(4):
        opened.view.keyboard.press("ArrowRight")
    assert opened.view.input_value("#time") == "09:30"
    opened.answers(one(service, at="2024-04-05T09:30"))
    assert opened.hash["at"] == "2024-04-05T09:30"
    box = opened.view.locator("#hour").bounding_box()
    opened.view.mouse.click(box["x"] + box["width"] * 18 * 60 / 1425, box["y"] + 20)
    assert opened.view.input_value("#time") in ("17:45", "18:00", "18:15")
    dot = opened.view.get_attribute("#curve .dot", "cx")
    frame = opened.view.locator("#curve").bounding_box()
    assert float(dot) + frame["x"] == pytest.approx(box["x"] + box["width"] * 18 * 60 / 1425, abs=5)
    opened.wait("() => document.querySelector('#hour').getAttribute('aria-valuetext')")


def test_another_time_asks_for_one_trip_and_another_day_for_all(
    page: Open, service: Service
) -> None:
    opened = page()
    sizes: list[int] = []
    opened.view.on(
        "request",
        lambda request: request.post_data and sizes.append(len(json.loads(request.post_data))),
    )
    opened.open(f"from={FROM}&to={TO}&at={AT}")
    assert sizes == [97]
    opened.view.fill("#time", "17:10")
    opened.answers(one(service, at="2024-04-05T17:10"))
    opened.wait("() => location.hash.includes('17:10')")
    with opened.view.expect_response("**/predict"):
        opened.view.fill("#time", "17:20")
    with opened.view.expect_response("**/predict"):
        opened.view.fill("#date", "2024-04-06")
    assert sizes[1:-1] == [1] * (len(sizes) - 2)
    assert sizes[-1] == 97
    opened.answers(one(service, at="2024-04-06T17:20"))


def test_swap_and_miles(page: Open, service: Service) -> None:
    opened = page().open(f"from={FROM}&to={TO}&at={AT}")
    opened.answers(one(service))
    assert "less sure" in opened.says(".doubt")
    assert "90 % of trips" in opened.says("#held")
    opened.view.fill("#miles", "9")
    opened.answers(one(service, trip_distance=9.0))
    opened.wait("() => !document.querySelector('.doubt')")
    opened.view.click("#swap")
    opened.answers(one(service, pickup=TO, dropoff=FROM, trip_distance=9.0))
    assert (opened.hash["from"], opened.hash["to"]) == (str(TO), str(FROM))
    opened.view.fill("#miles", "-1")
    opened.wait("() => document.querySelector('.prompt')")
    assert opened.says("#answer") == "Miles are a number from 0 on, or nothing."


def test_a_promoted_model_answers_next_and_draws_the_day_anew(
    page: Open, service: Service, second: Served
) -> None:
    opened = page().open(f"from={FROM}&to={TO}&at={AT}&miles=3")
    assert opened.says("#model").startswith("Model 1,")
    before = opened.view.get_attribute("#curve .line", "d")
    service.models.current = predictor.load(second)
    opened.view.fill("#time", "09:00")
    opened.wait("() => document.querySelector('#model').innerText.startsWith('Model 2,')")
    opened.answers(one(service, at="2024-04-05T09:00", trip_distance=3.0))
    assert opened.view.get_attribute("#curve .line", "d") != before
    assert opened.view.is_visible("#miles")


def test_a_model_that_needs_no_miles_is_not_doubted_without(
    page: Open, service: Service, booking: Served
) -> None:
    service.models.current = predictor.load(booking)
    opened = page().open(f"from={FROM}&to={TO}&at={AT}")
    assert not opened.view.query_selector(".doubt")
    assert "90 % of trips" in opened.says("#held")
    assert not opened.view.is_visible("#miles")


# -- the address ---------------------------------------------------------------------------------


def test_a_link_shows_the_same_trip(page: Open, service: Service) -> None:
    opened = page().open(f"from={FROM}&to={TO}&at={AT}&miles=1.5")
    fields = {name: opened.view.input_value(f"#{name}") for name in ("date", "time", "miles")}
    assert fields == {"date": "2024-04-05", "time": "08:30", "miles": "1.5"}
    opened.answers(one(service, trip_distance=1.5))
    again = page().open(urlsplit(opened.view.url).fragment)
    assert again.says("#answer") == opened.says("#answer")
    again.view.evaluate(f"location.hash = 'from={TO}&to={FROM}&at={AT}'")
    again.answers(one(service, pickup=TO, dropoff=FROM))
    assert again.view.input_value("#miles") == ""


@pytest.mark.parametrize("hash", ["from=9999&to=x", "at=now&miles=many", "%%%", "from=74&from=41"])
def test_a_link_that_makes_no_sense_asks_for_a_trip(page: Open, hash: str) -> None:
    opened = page().open(hash, settled=".prompt")
    assert "hoose" in opened.says("#answer")


def test_the_time_is_now_in_new_york(page: Open, service: Service) -> None:
    opened = page(timezone_id="Asia/Tokyo")
    opened.view.clock.set_fixed_time("2024-07-04T03:30:00Z")
    opened.open()
    assert opened.view.input_value("#date") == "2024-07-03"
    assert opened.view.input_value("#time") == "23:30"


# -- what goes wrong -----------------------------------------------------------------------------


def test_a_service_that_cannot_answer_is_a_sentence_and_may_be_asked_again(
    page: Open, service: Service
) -> None:
    opened = page()
    opened.allowed = 1  # the browser's own line about the 503
    model = service.models.current
    opened.open(f"from={FROM}&to={TO}&at={AT}")
    service.models.current = None
    opened.view.fill("#miles", "2")
    opened.view.wait_for_selector("#trouble:not([hidden])")
    assert opened.says("#trouble p").startswith("The service could not answer (503).")
    assert opened.says("#answer") == ""
    assert not opened.view.is_visible("#day")
    service.models.current = model
    opened.view.click("#retry")
    opened.answers(one(service, trip_distance=2.0))
    assert not opened.view.is_visible("#trouble")


def test_a_service_that_is_gone_is_a_sentence(page: Open, service: Service) -> None:
    opened = page()
    opened.allowed = 1
    opened.open(f"from={FROM}&to={TO}&at={AT}")
    opened.view.route("**/predict", lambda route: route.abort())
    opened.view.fill("#time", "10:00")
    opened.view.wait_for_selector("#trouble:not([hidden])")
    assert opened.says("#trouble p").startswith("The service does not answer.")
    opened.view.unroute("**/predict")
    opened.view.click("#retry")
    opened.answers(one(service, at="2024-04-05T10:00"))


def test_a_map_that_is_not_answered_may_be_asked_for_again(page: Open, service: Service) -> None:
    opened = page()
    opened.allowed = 1
    opened.view.route("**/zones", lambda route: route.abort())
    opened.open(f"from={FROM}&to={TO}&at={AT}", settled="#trouble:not([hidden])")
    opened.view.unroute("**/zones")
    opened.view.click("#retry")
    opened.answers(one(service))


def test_a_trip_that_is_refused_names_the_field(page: Open, service: Service) -> None:
    opened = page()
    opened.allowed = 1

    def spoil(route: Any) -> None:
        trips = [one | {"pickup_zone": 999} for one in json.loads(route.request.post_data)]
        route.continue_(post_data=json.dumps(trips))

    opened.view.route("**/predict", spoil)
    opened.open(f"from={FROM}&to={TO}&at={AT}", settled="#trouble:not([hidden])")
    said = opened.says("#trouble p")
    assert re.fullmatch(r"The service refuses this trip: look at the pickup \(.*265\)\.", said)


def test_a_slow_answer_never_replaces_a_newer_one(page: Open, service: Service) -> None:
    opened = page().open(f"from={FROM}&to={TO}&at={AT}")
    held: list[Any] = []

    def hold(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    opened.view.route("**/predict", hold)
    with opened.view.expect_request("**/predict"):
        opened.view.fill("#miles", "20")
    opened.view.fill("#miles", "1")
    opened.answers(one(service, trip_distance=1.0))
    held[0].abort()  # which the page has given up already
    opened.answers(one(service, trip_distance=1.0))
    assert not opened.view.is_visible("#trouble")


# -- looks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(PHONE, "light", id="phone"),
        pytest.param(PHONE, "dark", id="phone-dark"),
        pytest.param({"width": 320, "height": 568}, "light", id="small"),
        pytest.param({"width": 700, "height": 900}, "light", id="tablet"),
        pytest.param(WIDE, "light", id="wide"),
        pytest.param(WIDE, "dark", id="wide-dark"),
    ],
)
def test_nothing_is_wider_than_the_window(page: Open, size: dict[str, int], scheme: str) -> None:
    opened = page(viewport=size, color_scheme=scheme)
    opened.open(f"from={FROM}&to={TO}&at={AT}")
    for selector in ("#from", "summary"):
        opened.view.click(selector)
        wide = "[document.documentElement.scrollWidth, innerWidth]"
        found, window = opened.view.evaluate(wide)
        assert found <= window
    cut = "[...document.querySelectorAll('main > *')].filter(e => e.scrollHeight > e.clientHeight)"
    assert opened.view.evaluate(f"{cut}.map(e => e.id)") == []
    buttons = opened.view.locator("button:visible").all()
    boxes = [SimpleNamespace(**button.bounding_box()) for button in buttons]
    assert len(boxes) == 5
    assert all(box.width >= 24 and box.height >= 24 for box in boxes)  # WCAG 2.2, 2.5.8


def test_everything_has_a_name(page: Open) -> None:
    opened = page().open(f"from={FROM}&to={TO}&at={AT}")
    tree = opened.view.locator("body").aria_snapshot()
    for role in ("button", "combobox", "spinbutton", "slider", "application", "textbox", "img"):
        found = re.findall(rf"- {role}\b(.*)", tree)
        assert all(re.match(r' "\S', line) for line in found), (role, found)
    for named in ('application "Map of the zones"', 'combobox "Pickup"', 'combobox "Drop-off"'):
        assert named in tree
    assert re.search(r'slider "Time of pickup', tree)


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.2."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_can_be_read(scheme: str) -> None:
    css = (PAGE / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if scheme == "light" else dark))
    texts = [("ink", "paper"), ("soft", "paper"), ("ink", "raised"), ("soft", "raised")]
    texts += [("accent", "paper"), ("ink", "wash"), ("wrong", "on-wrong")]
    texts += [("on-from", "from"), ("on-to", "to"), ("on-land", "water")]
    texts += [("on-land", f"land-{number}") for number in range(8)]
    for text, ground in texts:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    # What is no text: the borders of fields, the curve, the line of the trip.
    marks = [("edge", "paper"), ("edge", "raised"), ("accent", "wash"), ("accent", "raised")]
    marks += [("ink", "water"), *(("ink", f"land-{number}") for number in range(8))]
    for mark, ground in marks:
        assert contrast(colours[mark], colours[ground]) >= 3, (mark, ground)
