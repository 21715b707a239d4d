"""Explorer 6, the game: how far does it go as the depth doubles?"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import Any, ClassVar

import numpy as np

from deepnet_edu.data import TokenMap
from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Choice, Dial, rules
from deepnet_edu.explorers.settings import MAP_RECIPE, VOCABULARY, Tick, decoder, movable_constants
from deepnet_edu.explorers.signal import ALPHAS, BETAS
from deepnet_edu.figures.game import GameFigure, GameView, Round
from deepnet_edu.figures.style import FIRST
from deepnet_edu.model import build_model
from deepnet_edu.profiles import History
from deepnet_edu.progress import note_score, progress_file, read_scores
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.training import TrainingDiverged, train

GAME = "depth_game"
LADDER = (8, 16, 32, 64, 128, 256, 512, 1024)
RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2]
#: As on the map: 40 steps of 8 sequences. There Post-LN learns 8 layers and no 16, DeepNorm with the paper's constants
#: all depths of the ladder, and Pre-LN is slow at 1,024 (learning rate 1e-3, seed 0).
TASK = TokenMap(vocab_size=VOCABULARY, length=16, batch_size=8)
#: Mean of the last five losses below which a stack has learned; a uniform guess has 2.77.
GOAL = 2.0
REDRAW_S = 0.5


class GameExplorer(Explorer):
    """Choose rule, α, β and learning rate for a depth and register: a real tiny stack is trained, and if it learns, the
    depth doubles."""

    name = "game"
    title = "The game: how deep can you go?"
    about = "choose rule, α, β and learning rate and register them; a real stack is trained, and the depth doubles."
    what = (
        "Each round trains a real stack of the depth marked by the dotted line, 40 steps, the stack alone. The mean of "
        "its last five losses must be below the dashed green line; then the depth doubles.",
        "“Not yet” means that these 40 steps were too few or did not help: a slow run is not a dead one. Look at the "
        "curve: is it still falling, or has it been at 2.77, a uniform guess, from the start?",
        "A round takes less than a second at 8 layers and some 20 s at 1,024. What you choose is registered: moving a "
        "dial during a run changes the next round.",
    )
    presets: ClassVar[Any] = {
        "Post-LN": {},
        "Pre-LN": {"residual": FIRST[1]},
        "DeepNorm, α = 1.5": {"residual": FIRST[2], "alpha": 1.5, "beta": 0.4714},
    }

    #: Depths, from the one where a game begins.
    ladder: Sequence[int] = LADDER

    def __init__(self, **more: Any) -> None:
        self.residual = Choice("rule", rules(lambda rule: rule in map(RESIDUALS.get, FIRST)), FIRST[0])
        self.alpha = Dial("α", ALPHAS, 1.0, note="the factor on the skip is positive")
        self.beta = Dial("β", BETAS, 1.0, note="the gain of the initial weights is positive")
        self.rate = Dial("learning rate", RATES, 1e-3, note="a learning rate is positive")
        self.rounds: list[Round] = []
        self.depth = self.ladder[0]
        self.training = False
        self._loss: list[float] = []
        file = progress_file()
        self.best = read_scores(file).get(GAME, 0) if file else 0
        buttons = {
            "play": ("Register and train", "Train a stack of this depth with these settings", self.play),
            "again": ("Start again", f"Back to {self.ladder[0]} layers; the best stays", self.restart),
        }
        figure = GameFigure(self.ladder, MAP_RECIPE.steps, log(VOCABULARY), GOAL)
        super().__init__(["residual", "alpha", "beta", "rate"], figure, more, buttons)

    @property
    def chosen(self) -> str:
        """The settings in words."""
        constants = ""
        if movable_constants(self.residual.value):
            constants = f", α = {self.alpha.value:.3g}, β = {self.beta.value:.3g}"
        return f"{RESIDUALS[self.residual.value].title}{constants}, learning rate {self.rate.value:.3g}"

    def follow(self) -> None:
        """Rules without α and β have none to set."""
        self.alpha.disabled = self.beta.disabled = not movable_constants(self.residual.value)

    def refresh(self) -> None:
        """A dial has moved: a run that is on continues, it was registered."""
        try:
            self.follow()
            self.draw()
            if not self.training:
                self.say("")
        except Exception as error:
            self._failed(error)

    def view(self, measured: Any) -> GameView:
        """Where the game is."""
        last = self.rounds[-1] if self.rounds else None
        if self.training:
            title = f"{self.depth:,} layers are being trained …"
        elif last and last.depth == self.ladder[-1] and last.learned:
            title = f"{self.ladder[-1]:,} layers have learned: you have won."
        else:
            title = f"{self.depth:,} layers, next: {self.chosen}"
        said = "Choose a rule and a learning rate, and register them."
        if last:
            said = f"{last.depth:,} layers, {last.choice}: {'learned.' if last.learned else 'not yet.'}"
            if not last.learned:
                said += " Change something and try again."
        best = f"Deepest stack that has learned: {self.best:,} layers." if self.best else "No stack has learned yet."
        return GameView(title, said, best, self.depth, self._loss, self.rounds, self.best)

    def play(self) -> None:
        """Register what the dials say, and train in the background."""
        if self.training:
            self.refuse("A stack is being trained: wait for its end.")
            return
        movable = movable_constants(self.residual.value)
        constants: Any = {"alpha": self.alpha.value, "beta": self.beta.value} if movable else {}
        depth, chosen = self.depth, self.chosen
        config = decoder(self.residual.value, depth, **constants)
        recipe = replace(MAP_RECIPE, learning_rate=float(self.rate.value), profile_every=0)
        self.training, self._loss = True, []

        def run(tick: Tick) -> Round:
            self.draw()
            drawn = time.monotonic()

            def follow(history: History) -> None:
                nonlocal drawn
                tick(len(history.loss) / recipe.steps)
                self._loss = history.loss
                if time.monotonic() > drawn + REDRAW_S:
                    self.draw()
                    drawn = time.monotonic()

            try:
                train(build_model(config, seed=len(self.rounds)), TASK, recipe, on_step=follow, progress=False)
            except TrainingDiverged as stopped:
                return Round(depth, f"{chosen}: diverged at step {stopped.step}", False)
            final = float(np.mean(self._loss[-5:]))
            return Round(depth, f"{chosen}: loss {final:.2f}", final < GOAL)

        self._background.start(run, self._ended, self._measuring, self._broke)

    def _ended(self, played: Round) -> None:
        self.training = False
        self.rounds.append(played)
        if played.learned:
            self.best = max(self.best, played.depth)
            if file := progress_file():
                with contextlib.suppress(OSError):  # a file that cannot be written must not end the game
                    self.best = max(self.best, note_score(file, GAME, self.best))
            self.depth = self.ladder[min(self.ladder.index(played.depth) + 1, len(self.ladder) - 1)]
        self.draw()
        self.say("")

    def _broke(self, error: Exception) -> None:
        self.training = False
        self._failed(error)

    def restart(self) -> None:
        """Back to the shallowest stack; the best stays."""
        self._background.cancel()
        self.training, self.rounds, self._loss, self.depth = False, [], [], self.ladder[0]
        self.refresh()
