// "Select all on this page", and how many are selected. The page works without it.
(function () {
    "use strict";

    var all = document.getElementById("select-all"),
        said = document.getElementById("selected"),
        boxes = Array.from(document.querySelectorAll('input[name="item"][form="requeue"]'));

    function count() {
        var selected = boxes.filter(function (box) { return box.checked; }).length;
        said.textContent = selected ? " " + selected : "";
        all.checked = selected > 0 && selected === boxes.length;
        all.indeterminate = selected > 0 && selected < boxes.length;
    }

    all.hidden = boxes.length === 0;
    all.addEventListener("change", function () {
        boxes.forEach(function (box) { box.checked = all.checked; });
        count();
    });
    boxes.forEach(function (box) { box.addEventListener("change", count); });
    count();
}());
