// An image in the clipboard goes where an uploaded one does, as a file. Text is left to whatever has the cursor.
() => {
  document.addEventListener("paste", (event) => {
    const image = [...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"));
    const input = document.querySelector("#la-paste input[type=file]");
    const shown = document.querySelector("#la-upload")?.offsetParent;
    if (!image || !input || !shown) return;
    event.preventDefault();
    const files = new DataTransfer();
    files.items.add(image);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
}
