//! The best classes of a picture, from a head in a file of its own: a linear probe, or Meta's ImageNet head.
//!
//!     cargo run --release --example classify -- vit_small_patch16_dinov3 synthetic:7 head.safetensors a.jpg

use std::error::Error;
use std::path::Path;

use dinov3::{Encoder, Features, Head, Labels, Options, Pooling, Request, Weights, WithHead, top_k};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, weights, head, picture] = &arguments[..] else {
        return Err("expected MODEL WEIGHTS HEAD PICTURE".into());
    };

    let opened = dinov3::open(model, &Weights::parse(weights)?, &Options::new())?;
    let head = Head::open(Path::new(head), opened.spec(), opened.model.isa(), None)?;
    let labels = head.is_meta_imagenet().then(Labels::imagenet);
    println!("{} classes of {} features", head.classes(), head.input().name());

    let image = opened.preprocess_path(picture)?;
    let mut classifier = WithHead::new(opened.model.session(), head);
    let mut features = Features::default();
    let request = Request::new().logits(Pooling::Average); // the head knows its own input
    classifier.encode(&dinov3::image::batch_of_one(&image), &request, &mut features)?;

    for class in top_k(&features.logits.ok_or("asked for")?.data, 5) {
        let label = labels.as_ref().and_then(|labels| labels.get(class.index)).unwrap_or_default();
        println!("{:6.2} %  class {} {label}", 100.0 * class.probability, class.index);
    }
    Ok(())
}
