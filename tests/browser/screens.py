"""Pictures of the pages, to look at and for the README.

    python -m tests.browser.screens screens                       # of drawn leaves: audit, report, comparison
    python -m tests.browser.screens screens --run RUN --audit FOLDER --readme docs/pictures

The first form draws leaves, audits them, trains two small networks and compares them, in screens/work. Each page is
taken at 1280 and 390 px: its first screen, and as a whole. With `--readme` the first screen of the report, the errors
and the findings of the audit are also written as small pictures.
"""

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.pages import Browser, missing
from tests.support import REPOSITORY

SCREENS = {1280: 800, 390: 844}  # width: height, in CSS pixels
README_WIDTH = 640  # pixels
# What the README shows of which page: name, page, whether it begins at the first pictures of photographs.
README = (("audit", "audit", False), ("errors", "report", True), ("report", "report", False))


def main() -> None:
    """Make the pages if none are given, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--run", type=Path, help="run folder whose report is taken")
    parser.add_argument("--audit", type=Path, help="output folder of an audit")
    parser.add_argument("--readme", type=Path, help="folder for the pictures of the README")
    options = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    options.output.mkdir(parents=True, exist_ok=True)
    pages = (
        {"report": options.run / "report.html", "audit": options.audit / "audit.html"}
        if options.run and options.audit
        else drawn(options.output / "work")
    )
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser.start(Path(profile))
        try:
            for name, page in pages.items():
                for width, height in SCREENS.items():
                    browser.open(page, width, unfold=False)
                    (options.output / f"{name}-{width}.png").write_bytes(browser.seen(width, height))
                    browser.screenshot(options.output / f"{name}-{width}-whole.png", width)
            if options.readme:
                for_readme(browser, pages, options.readme)
        finally:
            browser.stop()


def drawn(work: Path) -> dict[str, Path]:
    """Return the pages of a set of drawn leaves, by name; made with the real commands."""
    data, logs = work / "data", work / "lightning_logs"
    fit = ["fit", "--config", REPOSITORY / "configs/demo.yaml", "--data.root", data, "--trainer.max_epochs", "6"]
    commands: list[list[object]] = [
        ["demo", data, "--images_per_class", "120"],
        ["audit", data, "--output", work / "audit", "--positive_class", "BLD"],
        *(
            [*fit, "--trainer.default_root_dir", work, "--run_name", f"seed_{n}", "--seed_everything", n]
            for n in (1, 2)
        ),
        ["compare", logs / "seed_1", logs / "seed_2", "--output", work / "comparison"],
    ]
    for command in commands:
        subprocess.run([sys.executable, "-m", "bldml", *map(str, command)], check=True)
    return {
        "report": logs / "seed_1/report.html",
        "audit": work / "audit/audit.html",
        "comparison": work / "comparison/comparison.html",
    }


def for_readme(browser: Browser, pages: dict[str, Path], folder: Path) -> None:
    """Write the three pictures of the README, small."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page, at_photographs in README:
        browser.open(pages[page], 1280, unfold=False)
        if at_photographs:
            browser.run("document.querySelector('.gallery').previousElementSibling.scrollIntoView()")
        image = Image.open(io.BytesIO(browser.seen(1280, 800))).convert("RGB")
        image = image.resize((README_WIDTH, round(image.height * README_WIDTH / image.width)), Image.Resampling.LANCZOS)
        image.save(folder / f"{name}.webp", quality=82, method=6)


if __name__ == "__main__":
    main()
