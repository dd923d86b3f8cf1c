/* Quizzes: a button that checks the choice and says why.  Without this script a page shows each
   question with its options, and all answers in a drop-down. */
(() => {
  "use strict";

  const prepare = (question) => {
    const options = [...question.querySelectorAll("input[type=radio]")];
    const answers = question.querySelector(".quiz-answers");
    const verdict = question.querySelector(".quiz-verdict");
    const feedback = answers.querySelectorAll(".quiz-feedback");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiz-check";
    button.textContent = "Check";
    verdict.before(button);
    answers.hidden = true; // until the question is answered

    const say = (words, state, why) => {
      const strong = document.createElement("strong");
      strong.textContent = words;
      // The answer's formulas are typeset already; a copy stays typeset.
      verdict.replaceChildren(strong, ...(why ? [" ", why.cloneNode(true)] : []));
      question.dataset.verdict = state;
    };

    const check = () => {
      const chosen = options.findIndex((option) => option.checked);
      if (chosen < 0) {
        say("Choose an answer first.", "none");
        return;
      }
      const right = "right" in options[chosen].dataset;
      say(right ? "Right." : "Not yet.", right ? "right" : "wrong", feedback[chosen]);
      if (right) answers.hidden = false;
    };

    button.addEventListener("click", check);
    options.forEach((option) => {
      option.addEventListener("keydown", (event) => {
        if (event.key === "Enter") check();
      });
      option.addEventListener("change", () => {
        verdict.replaceChildren();
        delete question.dataset.verdict;
      });
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".quiz-question").forEach(prepare);
    document.querySelectorAll(".quiz").forEach((quiz) => quiz.classList.add("quiz-ready"));
  });
})();
