// Decoders that run in the page: each model's latents have a slider, and its image is drawn anew as one moves.
(root => {
  const ints = text => new Int16Array(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
  const activations = {
    identity: v => v, relu: v => Math.max(v, 0), tanh: Math.tanh, sigmoid: v => 1 / (1 + Math.exp(-v)),
  };

  // The layers of a model: weights (outputs, inputs) and biases, whole numbers times the layer's step.
  const layersOf = model => {
    const all = ints(model.weights);
    let at = 0;
    return model.layers.map(({inputs, outputs, step, activation}) => {
      const weights = new Float32Array(outputs * inputs), biases = new Float32Array(outputs);
      for (let o = 0; o < outputs; o++) {
        for (let i = 0; i < inputs; i++) weights[o * inputs + i] = all[at++] * step;
        biases[o] = all[at++] * step;
      }
      return {inputs, outputs, weights, biases, activation: activations[activation]};
    });
  };

  const decode = (layers, z) => layers.reduce((x, {inputs, outputs, weights, biases, activation}) => {
    const y = new Float32Array(outputs);
    for (let o = 0; o < outputs; o++) {
      let sum = biases[o];
      for (let i = 0, w = o * inputs; i < inputs; i++) sum += weights[w + i] * x[i];
      y[o] = activation(sum);
    }
    return y;
  }, z);

  const draw = (canvas, pixels, [channels, height, width]) => {
    const image = new ImageData(width, height);
    for (let p = 0; p < height * width; p++) {
      for (let c = 0; c < 3; c++) image.data[4 * p + c] = Math.round(255 * pixels[(c % channels) * height * width + p]);
      image.data[4 * p + 3] = 255;
    }
    canvas.getContext('2d').putImageData(image, 0, 0);
  };

  root.querySelectorAll('.model').forEach(place => {
    const model = JSON.parse(place.querySelector('script').textContent), layers = layersOf(model);
    const picture = place.querySelector('img'), canvas = document.createElement('canvas');
    [canvas.height, canvas.width] = model.shape.slice(1);
    canvas.style.cssText = picture.style.cssText;
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', picture.alt);
    picture.replaceWith(canvas);
    const sliders = [...place.querySelectorAll('input')], z = Float32Array.from(model.start);
    const show = () => {
      sliders.forEach(slider => {
        z[slider.dataset.latent] = slider.value;
        slider.setAttribute('aria-valuetext', slider.nextElementSibling.value = (+slider.value).toFixed(1).replace('-', '−'));
      });
      draw(canvas, decode(layers, z), model.shape);
    };
    sliders.forEach(slider => { slider.disabled = false; slider.oninput = show; });
    place.querySelector('button').disabled = false;
    place.querySelector('button').onclick = () => {
      sliders.forEach(slider => { slider.value = model.start[slider.dataset.latent]; });
      show();
    };
    show();
  });
})(document.getElementById('{{ root }}'));
