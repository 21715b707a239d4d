"""Explorer 6, the game: keep it alive as the depth doubles."""

import contextlib
import time
from math import log
from typing import Any

import ipywidgets
import numpy as np

from deepnet_edu.data import TokenMap
from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Dial, choice, rules
from deepnet_edu.explorers.settings import VOCABULARY, Tick, decoder, movable_constants
from deepnet_edu.explorers.signal import ALPHAS, BETAS
from deepnet_edu.figures.game import GameFigure, GameView, Round
from deepnet_edu.figures.style import FIRST
from deepnet_edu.model import build_model
from deepnet_edu.profiles import History
from deepnet_edu.progress import note_score, progress_file, read_scores
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.training import TrainConfig, TrainingDiverged, train

GAME = "depth_game"
LADDER = (8, 16, 32, 64, 128, 256, 512, 1024)
RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2]
STEPS, WARMUP = 25, 8
TASK = TokenMap(vocab_size=VOCABULARY, length=16, batch_size=4)
#: Mean of the last five losses; knowing nothing is 2.77.
ALIVE = 2.0
REDRAW_S = 0.5


class GameExplorer(Explorer):
    """Choose rule, α, β and learning rate for a depth and register: a real tiny stack is trained, and if it learns, the
    depth doubles."""

    name = "game"
    title = "The game: keep it alive as the depth doubles"
    about = "choose rule, α, β and learning rate and register them; a real stack is trained, and the depth doubles."

    def __init__(self) -> None:
        said: dict[str, Any] = {"changed": self._chosen, "refuse": self.say_refused}
        self.residual = choice("rule", rules(lambda rule: rule in map(RESIDUALS.get, FIRST)), FIRST[0], self._chosen)
        self.alpha = Dial("α", ALPHAS, 1.0, note="the factor on the skip is positive", **said)
        self.beta = Dial("β", BETAS, 1.0, note="the gain of the first weights is positive", **said)
        self.rate = Dial("learning rate", RATES, 1e-3, note="a learning rate is positive", **said)
        self.register = ipywidgets.Button(
            description="Register and train", icon="play", tooltip="Train a stack of this depth with these settings"
        )
        self.again = ipywidgets.Button(description="Start again at 8 layers", icon="undo")
        self.alpha.disabled = self.beta.disabled = not movable_constants(self.residual.value)
        self.register.on_click(lambda _: self.play())
        self.again.on_click(lambda _: self.restart())
        self.rounds: list[Round] = []
        self.depth = LADDER[0]
        self.training = False
        self._loss: list[float] = []
        file = progress_file()
        self.best = read_scores(file).get(GAME, 0) if file else 0
        buttons = ipywidgets.HBox([self.register, self.again])
        super().__init__(
            [self.residual, self.alpha, self.beta, self.rate, buttons],
            GameFigure(LADDER, STEPS, log(VOCABULARY), ALIVE),
        )

    @property
    def chosen(self) -> str:
        """The settings in words."""
        constants = ""
        if movable_constants(self.residual.value):
            constants = f", α = {self.alpha.value:.3g}, β = {self.beta.value:.3g}"
        return f"{RESIDUALS[self.residual.value].title}{constants}, learning rate {self.rate.value:.3g}"

    def _chosen(self) -> None:
        """A dial moved: a run that is on goes on, it was registered."""
        try:
            self.alpha.disabled = self.beta.disabled = not movable_constants(self.residual.value)
            self.draw(None)
            if not self.training:
                self.say("")
        except Exception as error:
            self._failed(error)

    def say_refused(self, text: str) -> None:
        """As :meth:`refuse`, but a run that is on goes on."""
        self.say(text, "refuse")

    def view(self, measured: Any) -> GameView:
        """Where the game stands."""
        if self.training:
            title = f"{self.depth:,} layers are being trained …"
        elif self.rounds and self.rounds[-1].depth == LADDER[-1] and self.rounds[-1].alive:
            title = f"{LADDER[-1]:,} layers, alive: you have won."
        else:
            title = f"{self.depth:,} layers, next: {self.chosen}"
        return GameView(self.depth, self._loss, self.rounds, self.best, title)

    def play(self) -> None:
        """Register what the dials say, and train in the background."""
        if self.training:
            self.say("A stack is being trained: wait for its end, a few seconds.", "refuse")
            return
        movable = movable_constants(self.residual.value)
        constants = {"alpha": self.alpha.value, "beta": self.beta.value} if movable else {}
        depth, chosen = self.depth, self.chosen
        config = decoder(self.residual.value, depth, 16, **constants)
        recipe = TrainConfig(steps=STEPS, learning_rate=self.rate.value, warmup=WARMUP, parameters="stack")
        self.training, self._loss = True, []

        def run(tick: Tick) -> Round:
            self.draw(None)
            drawn = time.monotonic()

            def follow(history: History) -> None:
                nonlocal drawn
                tick(len(history.loss) / STEPS)
                self._loss = history.loss
                if time.monotonic() > drawn + REDRAW_S:
                    self.draw(None)
                    drawn = time.monotonic()

            try:
                train(build_model(config, seed=len(self.rounds)), TASK, recipe, on_step=follow, progress=False)
            except TrainingDiverged as stopped:
                return Round(depth, f"{chosen}: diverged at step {stopped.step}", False)
            final = float(np.mean(self._loss[-5:]))
            return Round(depth, f"{chosen}: loss {final:.2f}", final < ALIVE)

        self._background.start(run, self._ended, self._measuring, self._broke)

    def _ended(self, played: Round) -> None:
        self.training = False
        self.rounds.append(played)
        if played.alive:
            self.best = max(self.best, played.depth)
            if file := progress_file():
                with contextlib.suppress(OSError):  # a file that cannot be written must not end the game
                    self.best = max(self.best, note_score(file, GAME, self.best))
            self.depth = LADDER[min(LADDER.index(played.depth) + 1, len(LADDER) - 1)]
        self.draw(None)
        self.say(
            f"{played.depth:,} layers, {played.choice}: "
            + ("alive." if played.alive else f"not below {ALIVE:g}. Change something and try again.")
        )

    def _broke(self, error: Exception) -> None:
        self.training = False
        self._failed(error)

    def restart(self) -> None:
        """Back to the shallowest stack; the best stays."""
        self._background.cancel()
        self.training, self.rounds, self._loss, self.depth = False, [], [], LADDER[0]
        self._chosen()
        self.say("")
