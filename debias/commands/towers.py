"""Options of `debias retrieval train`: which models to try and how to train them."""

from typing import Annotated, Any, NamedTuple

import typer

from debias.commands.inputs import check_name
from debias.commands.train import numbers_by_name
from debias.retrieval.training.recipe import KINDS, TOWERS, Recipe, candidates

AUTO = "auto"
REPEATS = (AUTO, "exclude", "allow", "model")
MOST = 1e9  # largest worth; far larger ones overflow the vectors of items
COMPRESSIONS = ("hash", "quotient_remainder")


class Learning(NamedTuple):
    """The models to try, built from the command-line options.

    Attributes:
        towers, history: The towers to try, and how they weigh the items of a history.
        recipe: The settings that all candidates share.
        epochs: Number of passes. If None, held-out events determine the number of
            passes.
    """

    towers: list[str]
    history: str
    recipe: Recipe
    epochs: int | None

    @staticmethod
    def of(
        model: Annotated[
            str,
            typer.Option(
                help=f"Towers to try, separated by commas: {' '.join(TOWERS)}. auto "
                "tries all towers and chooses one by held-out events."
            ),
        ] = AUTO,
        history: Annotated[
            str,
            typer.Option(
                help="Weights of the items in a history: recency (recent items weigh "
                "more), mean (all items weigh the same), or auto (held-out events "
                "decide). The towers youtube and mind ignore this option."
            ),
        ] = AUTO,
        dim: Annotated[int, typer.Option(min=1, help="Dimension of the vectors.")] = 64,
        hidden: Annotated[
            str, typer.Option(help="Sizes of the hidden layers, such as 128,64.")
        ] = "128",
        length: Annotated[
            int, typer.Option(min=1, help="Largest number of items in a history.")
        ] = 20,
        temperature: Annotated[
            float,
            typer.Option(
                help="Temperature that divides the inner products of the vectors."
            ),
        ] = 0.3,
        epochs: Annotated[
            int | None,
            typer.Option(
                min=1,
                help="Number of passes. By default, held-out events determine the "
                "number of passes.",
            ),
        ] = None,
        rate: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 0.003,
        batch_size: Annotated[int, typer.Option(min=2, help="Events per step.")] = 512,
        window_events: Annotated[
            int, typer.Option(min=1, help="Number of latest events to keep per user.")
        ] = 200,
        compress: Annotated[
            str | None,
            typer.Option(
                help="How ids share embedding rows: hash or quotient_remainder. This "
                "option needs --rows."
            ),
        ] = None,
        rows: Annotated[
            int | None,
            typer.Option(
                min=1,
                help="Number of embedding rows per table, if --compress is given.",
            ),
        ] = None,
        repeat: Annotated[
            str,
            typer.Option(
                help="Policy for items that a user took before: exclude, allow, or "
                "model (adds a learned bonus to their scores). auto chooses a policy "
                "from the last event of each user."
            ),
        ] = AUTO,
        worth: Annotated[
            list[str] | None,
            typer.Option(
                help="Weight of a kind of event in the score, as NAME=VALUE, such as "
                "order=5. Repeat the option for each value of the column that -c "
                "target=COLUMN names."
            ),
        ] = None,
        seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    ) -> "Learning":
        """Reads the options.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        towers = _towers(model)
        check_name("--history", history, (AUTO, *KINDS))
        check_name("--repeat", repeat, REPEATS)
        if (compress is None) != (rows is None):
            raise ValueError("--compress and --rows must be given together")
        if compress is not None:
            check_name("--compress", compress, COMPRESSIONS)
        config = {
            "length": length,
            "batch_size": batch_size,
            "learning_rate": _checked("--rate", rate, 1.0),
            "id_learning_rate": rate,
            "window_events": window_events,
            "seed": seed,
            "repeat": repeat,
        }
        temperature = _checked("--temperature", temperature, 1000.0)
        sizes = _sizes(hidden)
        recipe = Recipe(
            *(towers[0], dim, sizes, temperature, seed, config, compress, rows),
            worth=_worth(worth),
        )
        return Learning(towers, history, recipe, epochs)

    @property
    def recipes(self) -> list[Recipe]:
        """The candidates."""
        history = None if self.history == AUTO else self.history
        return candidates(self.recipe, self.towers, history)

    def settings(self) -> dict[str, Any]:
        """The settings as JSON values."""
        asked = {"tower": self.towers, "history": self.history, "epochs": self.epochs}
        return {**self.recipe._asdict(), **asked}


def _worth(texts: list[str] | None) -> dict[str, float] | None:
    """Weights of the kinds of events, by name."""
    found = {n: x[0] for n, x in numbers_by_name("worth", texts, 1).items()}
    wrong = [n for n, x in found.items() if not 0 <= x <= MOST]
    if wrong or (found and not any(found.values())):
        raise ValueError(
            f"--worth must be numbers from 0 to {MOST:g}, and one number must be above "
            "0"
        )
    return found or None


def _towers(text: str) -> list[str]:
    """The towers that --model names."""
    if text == AUTO:
        return list(TOWERS)
    names = text.split(",")
    known = (AUTO, *TOWERS) if len(names) == 1 else tuple(TOWERS)
    for name in names:
        check_name("--model", name, known)
    return list(dict.fromkeys(names))


def _checked(option: str, value: float, largest: float) -> float:
    """The value, if it is above 0 and at most `largest`; NaN is rejected."""
    if not 0 < value <= largest:
        raise ValueError(
            f"{option} must be above 0 and at most {largest:g}, got {value}"
        )
    return value


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(number) for number in text.split(",") if number]
    except ValueError:
        sizes = [0]
    if any(size < 1 for size in sizes):
        raise ValueError(
            "--hidden must be whole numbers of at least 1, such as 128,64; got "
            f"{text!r}"
        )
    return sizes
